from __future__ import annotations

import numpy as np
import pytest
from conftest import make_store

from ptal_ray.data.points import sorted_points
from ptal_ray.data.splits import fold
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Segments


def store_of(path, labels, classes):
    """A store whose training video n has the classes labels[n]."""
    names = tuple(f"c{k}" for k in range(classes))
    with StoreWriter(path, name="d", classes=names, grid=Grid(stride_s=1.0), features="test") as w:
        for n, found in enumerate(labels):
            pairs = [(float(k), c) for k, c in enumerate(found)]
            w.add(
                f"v{n}", subset="train", features=np.ones((4, 2)), duration_s=100.0,
                annotations=Segments.empty(), points=sorted_points(pairs),
            )  # fmt: skip
    return FeatureStore.open(path)


def sides(store, fit, val):
    return [{c for id in ids for c in store.points(id).label.tolist()} for ids in (fit, val)]


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_the_fold_parts_the_training_videos(tmp_path, fraction):
    store = FeatureStore.open(make_store(tmp_path / "d", train=10))
    fit, val = fold(store, fraction, 0)
    assert len(val) == 10 * fraction
    assert sorted(fit + val) == sorted(store.ids("train"))
    assert list(fit) == [i for i in store.ids("train") if i in fit]


def test_the_seed_decides(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d", train=20))
    folds = {fold(store, 0.3, seed) for seed in range(8)}
    assert fold(store, 0.3, 3) == fold(store, 0.3, 3)
    assert len(folds) == 8


def test_each_class_keeps_its_share(tmp_path):
    store = store_of(tmp_path / "d", [[0]] * 40 + [[1]] * 20 + [[2]] * 10, 3)
    _, val = fold(store, 0.2, 0)
    counts = np.bincount([store.points(i).label[0] for i in val])
    np.testing.assert_array_equal(counts, [8, 4, 2])


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_two_videos_is_on_both_sides(tmp_path, seed):
    labels = [[k, 10] for k in range(10)] + [[k, 11] for k in range(10)] + [[10], [11]] * 10
    store = store_of(tmp_path / "d", labels, 12)
    for found in sides(store, *fold(store, 0.3, seed)):
        assert found == set(range(12))


@pytest.mark.parametrize("seed", range(5))
def test_many_classes_in_few_videos_are_swapped_until_both_sides_see_them(tmp_path, seed):
    rng = np.random.default_rng(seed)
    labels = [sorted(set(rng.integers(0, 30, 6).tolist())) for _ in range(46)]
    store = store_of(tmp_path / "d", labels, 30)
    counts = np.bincount([c for found in labels for c in found], minlength=30)
    wide = set(np.flatnonzero(counts >= 2).tolist())
    for found in sides(store, *fold(store, 0.3, seed)):
        assert wide <= found


def test_a_fold_of_two_videos_has_one_on_each_side(tmp_path):
    store = store_of(tmp_path / "d", [[0], [0]], 1)
    for fraction in (0.01, 0.99):
        assert [len(side) for side in fold(store, fraction, 0)] == [1, 1]
