"""Batches hold the right snippets, whatever path they took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_store

from ptal_ray.data.batching import PackedSplit, resample, resampled_grid, snippet_points
from ptal_ray.data.sampling import BatchPlan
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Points, Segments


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "tiny"))


@pytest.mark.parametrize("resident", [False, True])
def test_features_are_the_stored_snippets_and_zero_behind_the_end(
    store: FeatureStore, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackedSplit, "_fits", lambda self: resident)
    split = PackedSplit(store, store.ids("train"), torch.device("cpu"))
    assert (split._packed is not None) == resident
    rows, start = np.array([2, 0, 1]), np.array([5, 0, 3])
    kept = np.minimum(split.lengths[rows] - start, [60, 60, 7])
    features = split.features(rows, start, kept, 60).numpy()
    for slot in range(3):
        stored = store.video(split.ids[rows[slot]]).features[start[slot] :][: kept[slot]]
        np.testing.assert_array_equal(features[slot, : len(stored)], stored)
        assert not features[slot, len(stored) :].any()


def test_staged_and_resident_batches_agree_after_resampling(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for resident in (False, True):
        monkeypatch.setattr(PackedSplit, "_fits", lambda self, r=resident: r)
        split = PackedSplit(store, store.ids("train"), torch.device("cpu"), resample_to=10)
        assert split.lengths.tolist() == [10] * len(split.ids)
        rows, start, kept = np.array([1, 3]), np.array([2, 0]), np.array([6, 9])
        made.append(split.features(rows, start, kept, 9))
        whole = split.features(rows, np.zeros(2, np.int64), np.full(2, 10), 10)
        torch.testing.assert_close(made[-1][0, :6], whole[0, 2:8])
        assert not made[-1][0, 6:].any()
    torch.testing.assert_close(made[0], made[1])


def test_resampling_a_linear_signal_keeps_it_linear() -> None:
    length = 40
    features = torch.arange(length, dtype=torch.float32)[None, :, None]
    made = resample(features, torch.tensor([length]), 10)[0, :, 0]
    centres = (torch.arange(10) + 0.5) * 4 - 0.5
    torch.testing.assert_close(made, centres)


def test_resampled_grid_covers_the_same_seconds() -> None:
    grid = resampled_grid(Grid(stride_s=0.64, offset_s=0.1), 250, 100)
    assert grid.seconds(100) == pytest.approx(250 * 0.64 + 0.1)


@pytest.mark.parametrize("resample_to", [0, 6])
def test_a_split_has_the_grid_of_each_video(tmp_path: Path, resample_to: int) -> None:
    grids = {"a": Grid(stride_s=1.0), "b": Grid(stride_s=0.5, offset_s=0.25)}
    points = Points(time_s=np.array([4.5]), label=np.array([0]))
    with StoreWriter(
        tmp_path / "d", name="d", classes=("x",), grid=None, features="test"
    ) as writer:
        for id, grid in grids.items():
            writer.add(
                id, subset="train", features=np.ones((12, 2)), duration_s=12 * grid.stride_s,
                annotations=Segments.empty(), points=points, grid=grid,
            )  # fmt: skip
    store = FeatureStore.open(tmp_path / "d")
    split = PackedSplit(
        store, ("b", "a"), torch.device("cpu"), points=[points, points], resample_to=resample_to
    )
    assert split.grids == [resampled_grid(grids[id], 12, resample_to) for id in ("b", "a")]
    assert split.point_t.tolist() == ([[4], [2]] if resample_to else [[8], [4]])


def test_points_share_a_snippet_as_multi_hot_and_are_clamped() -> None:
    points = Points(time_s=np.array([0.2, 0.3, 9.9]), label=np.array([0, 2, 1]))
    snippet, label = snippet_points(points, Grid(stride_s=0.5), 8, 3)
    assert snippet.tolist() == [0, 7]
    assert label.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_a_split_that_is_only_scored_reads_no_points(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FeatureStore, id: str) -> Points:
        raise AssertionError("points were read")

    monkeypatch.setattr(FeatureStore, "points", refuse)
    split = PackedSplit(store, store.ids("train"), torch.device("cpu"))
    assert (split.point_t == -1).all()


def test_every_epoch_visits_every_video_once() -> None:
    plan = BatchPlan(groups=(np.arange(12),), asked_batch_size=4, seed=3)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        visited = np.concatenate([plan.rows(s) for s in steps])
        assert sorted(visited.tolist()) == list(range(12))
    assert not np.array_equal(plan.rows(0), plan.rows(3))


def test_small_split_uses_a_power_of_two() -> None:
    assert BatchPlan(groups=(np.arange(13),), asked_batch_size=16, seed=0).batch_size == 8
    assert BatchPlan(groups=(np.arange(16),), asked_batch_size=16, seed=0).batch_size == 16


def test_crops_stay_inside_and_hold_a_point() -> None:
    plan = BatchPlan(groups=(np.arange(64),), asked_batch_size=64, seed=0)
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 400, 64)
    point_t = np.full((64, 3), -1)
    point_t[:, 0] = rng.integers(0, lengths)
    for step in range(20):
        start, size = plan.crops(step, lengths, point_t, 50)
        assert (size == np.minimum(50, lengths)).all()
        assert (start >= 0).all() and (start + size <= lengths).all()
        inside = (point_t[:, 0] >= start) & (point_t[:, 0] < start + 50)
        assert inside.all()
        assert (start[lengths <= 50] == 0).all()
        start, size = plan.crops(step, lengths, point_t, 200, shortest=0.9, more_points=0.7)
        assert (size >= np.minimum(200, np.round(0.9 * lengths))).all()
        assert (size <= np.minimum(200, lengths)).all()
        assert (start >= 0).all() and (start + size <= lengths).all()
        assert ((point_t[:, 0] >= start) & (point_t[:, 0] < start + size)).all()


def test_every_batch_holds_as_many_of_each_kind_side_by_side():
    few, many = np.array([3, 8, 9]), np.array([0, 1, 2, 4, 5, 6, 7])
    plan = BatchPlan(groups=(few, many), asked_batch_size=2, seed=1)
    assert plan.batch_size == 4 and plan.steps_per_epoch == 3
    batches = np.stack([plan.rows(step) for step in range(12)])
    assert set(batches[:, 0::2].ravel()) == set(few) and set(batches[:, 1::2].ravel()) <= set(many)
    running = batches[:, 0::2].ravel()  # pass after pass, each holding every row once
    for start in range(0, len(running), 3):
        assert set(running[start : start + 3]) == set(few)
    for epoch in range(4):
        own = batches[3 * epoch : 3 * epoch + 3, 1::2].ravel()
        assert len(set(own)) == 6
    assert (plan.rows(5) == batches[5]).all()


def test_a_rare_kind_is_repeated_and_does_not_shrink_the_batch():
    many, few = np.arange(20), np.array([20, 21, 22])
    plan = BatchPlan(groups=(many, few), asked_batch_size=16, seed=1)
    assert plan.batch_size == 32 and plan.steps_per_epoch == 1
    batches = np.stack([plan.rows(step) for step in range(3)])
    counts = np.bincount(batches[:, 1::2].ravel())[20:]
    assert counts.sum() == 48 and counts.tolist() == [16, 16, 16]
    assert len(set(batches[0, 0::2])) == 16
    assert BatchPlan(groups=(few, few), asked_batch_size=16, seed=1).batch_size == 4


def test_one_kind_of_video_is_visited_as_before():
    plan = BatchPlan(groups=(np.arange(7),), asked_batch_size=3, seed=4)
    order = np.random.default_rng([4, 1, 2]).permutation(7)
    assert plan.rows(2 * 2 + 1).tolist() == order[3:6].tolist()
