from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import make_store

from ptal_ray.data.points import sorted_points
from ptal_ray.data.splits import fold, kfold
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Segments
from ptal_ray.errors import DataError
from ptal_ray.methods.method import load
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.stages import entry
from ptal_ray.training.supervision import annotated_ids, split_ids


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


def classes_of(store, ids):
    return {c for id in ids for c in store.points(id).label.tolist()}


def random_labels(rng, videos, classes, each):
    return [sorted(set(rng.integers(0, classes, each).tolist())) for _ in range(videos)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_folds", [2, 3, 5])
@pytest.mark.parametrize("grouped", [False, True])
def test_k_folds_part_the_training_videos(tmp_path, num_folds, seed, grouped):
    rng = np.random.default_rng(seed)
    store = store_of(tmp_path / "d", random_labels(rng, 23, 6, 2), 6)
    groups = {id: f"g{rng.integers(0, 8)}" for id in store.ids("train")[2:]} if grouped else None
    folds = kfold(store, num_folds, seed, groups=groups)
    assert len(folds) == num_folds and all(folds)
    assert sorted(i for ids in folds for i in ids) == sorted(store.ids("train"))
    for ids in folds:
        assert list(ids) == [i for i in store.ids("train") if i in ids]
    if groups is None:
        assert {len(ids) for ids in folds} <= {23 // num_folds, 23 // num_folds + 1}
        return
    homes = [{groups[i] for i in ids if i in groups} for ids in folds]
    for k, own in enumerate(homes):
        assert not any(own & other for other in homes[k + 1 :])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_folds", [3, 4])
def test_every_fold_leaves_a_class_of_two_groups_to_fit(tmp_path, num_folds, seed):
    rng = np.random.default_rng(seed)
    store = store_of(tmp_path / "d", random_labels(rng, 40, 30, 5), 30)
    for groups in (None, {id: f"g{int(id[1:]) // 2}" for id in store.ids("train")}):
        homes = {c: set() for c in range(30)}
        for id in store.ids("train"):
            for c in store.points(id).label.tolist():
                homes[c].add(groups[id] if groups else id)
        wide = {c for c, found in homes.items() if len(found) >= 2}
        folds = kfold(store, num_folds, seed, groups=groups)
        for ids in folds:
            rest = [i for i in store.ids("train") if i not in ids]
            assert wide <= classes_of(store, rest)


def test_k_folds_spread_each_class_and_the_annotated_videos(tmp_path):
    store = store_of(tmp_path / "d", [[0]] * 40 + [[1]] * 20 + [[2]] * 8, 3)
    known = {f"v{n}" for n in range(0, 68, 17)}
    for ids in kfold(store, 4, 0, known):
        counts = np.bincount([store.points(i).label[0] for i in ids])
        np.testing.assert_array_equal(counts, [10, 5, 2])
        assert len(known & set(ids)) == 1


def test_the_seed_decides_the_k_folds(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d", train=20))
    assert kfold(store, 4, 3) == kfold(store, 4, 3)
    assert len({kfold(store, 4, seed) for seed in range(8)}) == 8


@pytest.mark.parametrize("num_folds", [0, 1, 4])
def test_k_folds_need_as_many_groups(tmp_path, num_folds):
    store = store_of(tmp_path / "d", [[0]] * 6, 1)
    groups = {f"v{n}": str(n % 3) for n in range(6)}
    with pytest.raises(DataError, match=rf"{num_folds} folds of 6 .* 3 groups; .* 2 to 3 folds"):
        kfold(store, num_folds, 0, groups=groups)


def trial_config(store, **changes):
    method = load("lacp")
    return TrialConfig(
        method="lacp", store=str(store.path), train=asdict(method.train_params()), decode={},
        decode_domains={}, decode_settings=1, cross_fit=False, seed=0, report_steps=(1,), **changes,
    )  # fmt: skip


def test_a_trial_selects_on_the_fold_it_is_told(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d", train=10))
    folds, hp = kfold(store, 3, 7), load("lacp").train_params()
    for k in range(3):
        config = trial_config(store, num_folds=3, fold=k, fold_seed=7)
        assert TrialConfig.from_json(config.to_json()) == config
        fit, val = split_ids(store, config, hp)
        assert val == folds[k]
        assert fit == tuple(i for i in store.ids("train") if i not in val)
        whole, _ = split_ids(store, replace(config, fit_on="train"), hp)
        assert whole == store.ids("train")
    with pytest.raises(DataError, match="fold 3: allowed are 0 to 2"):
        split_ids(store, trial_config(store, num_folds=3, fold=3), hp)


def test_earlier_stages_are_kept_for_each_fold(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d"))
    files = {
        entry((trial_config(store, stages=str(tmp_path), num_folds=n, fold=k), "hash", ()))
        for n, k in ((0, 0), (3, 0), (3, 1), (4, 1))
    }
    assert len(files) == 4


def test_a_fold_with_all_annotated_videos_is_refused(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "d", train=8))
    hp = load("apl.actionformer").train_params(labelled_fraction=0.01)
    folds = kfold(store, 4, 0, set(annotated_ids(store, hp)))
    full = next(k for k, ids in enumerate(folds) if set(annotated_ids(store, hp)) <= set(ids))
    with pytest.raises(DataError, match=rf"fold {full} of 4 holds all 1 annotated videos"):
        split_ids(store, trial_config(store, num_folds=4, fold=full), hp)
