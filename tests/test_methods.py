"""What every method must satisfy, whatever it is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HANG_S
from test_trial import config

from ptal_ray.data.types import Grid, Segments
from ptal_ray.methods.method import Method, load, names
from ptal_ray.training.batches import Batches
from ptal_ray.training.scoring import whole_videos
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial
from ptal_ray.training.worker import Worker

METHODS = sorted(names())


@pytest.fixture(params=METHODS)
def trial(request: pytest.FixtureRequest, store: Path) -> Trial:
    made = start(config(store, request.param))
    epochs = 2  # past a start that trains less
    for _ in range(epochs * made.batches.plan.steps_per_epoch + 1):
        made.train_step()
    return made


def terms(trial: Trial) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = trial.learner.objective(
        trial.batches.training(trial.step, trial.batches.plan.rows(trial.step)),
        trial.step_context(),
    )
    return found


def test_loss_is_finite_and_reaches_every_parameter(trial: Trial) -> None:
    found = terms(trial)
    assert all(t.dim() == 0 and torch.isfinite(t) for t in found.values())
    trial.learner.optimizer.zero_grad()
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in trial.learner.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_same_step_same_loss(trial: Trial) -> None:
    before = copy.deepcopy(trial.learner.model.state_dict())  # running numbers may be in it
    first = terms(trial)
    trial.learner.model.load_state_dict(before)
    second = terms(trial)
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}


def test_padding_does_not_change_scores(trial: Trial) -> None:
    split = trial.task.split(trial.task.score_ids, trial.worker.device)
    together = trial.score(trial.task.score_ids)
    method = trial.task.method
    for row, found in enumerate(together):
        batch = whole_videos(split, np.array([row]))
        longer = dataclasses.replace(
            batch,
            features=torch.nn.functional.pad(batch.features, (0, 0, 0, 37)),
            mask=torch.nn.functional.pad(batch.mask, (0, 37)),
        )
        with torch.no_grad():
            alone = method.scores(trial.learner.judged, longer, trial.task.hp)[0]
        assert alone.id == found.id
        for name, array in found.arrays.items():
            assert array.shape == alone.arrays[name].shape, name
            np.testing.assert_allclose(alone.arrays[name], array, atol=1e-4, err_msg=name)


def test_pseudo_labels_do_not_change_with_padding(trial: Trial) -> None:
    if trial.task.method.refresh is None:
        pytest.skip("the method has no pseudo-labels")
    rows = trial.batches.plan.rows(0)
    trial.learner.model.eval()
    with torch.no_grad():
        batch = trial.batches.whole(rows)
        one = trial.task.method.refresh(trial.learner.model, batch, trial.task.hp)
        padded = dataclasses.replace(
            batch,
            features=torch.nn.functional.pad(batch.features, (0, 0, 0, 11)),
            mask=torch.nn.functional.pad(batch.mask, (0, 11)),
        )
        other = trial.task.method.refresh(trial.learner.model, padded, trial.task.hp)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert len(value) == len(rows)
        torch.testing.assert_close(value, other[name], msg=name)


def test_videos_without_points_have_a_finite_loss(trial: Trial) -> None:
    if trial.task.method.refresh is None:
        pytest.skip("the method has no pseudo-labels")
    split = copy.copy(trial.batches.split)
    split.point_t, split.pair_t, split.pair_class = (
        np.full_like(column, -1) for column in (split.point_t, split.pair_t, split.pair_class)
    )
    split.point_label = np.zeros_like(split.point_label)
    batches = Batches(
        trial.task, Worker(), split=split, plan=trial.batches.plan, labels=trial.batches.labels,
        memory=trial.batches.memory,
    )  # fmt: skip
    batch = batches.whole(np.arange(2))
    with torch.no_grad():
        pseudo = trial.task.method.refresh(trial.learner.model, batch, trial.task.hp)
    batch = dataclasses.replace(batch, pseudo=pseudo)
    found = trial.task.method.loss(trial.learner.model, batch, trial.task.hp, trial.step_context())
    assert all(torch.isfinite(term) for term in found.values())


@pytest.mark.parametrize("offset_s", [None, -0.45])  # windows that are shorter than the stride
def test_detections_are_sorted_and_inside_the_video(trial: Trial, offset_s: float | None) -> None:
    for found in trial.score(trial.task.score_ids):
        duration_s = trial.task.store.duration_s(found.id)
        grid = trial.task.store.info.grid
        grid = grid if offset_s is None else Grid(stride_s=grid.stride_s, offset_s=offset_s)
        made = trial.task.method.decode(found, grid, duration_s, trial.task.method.decode_params())
        assert len(made)
        assert (np.diff(made.score) <= 0).all()
        assert (made.start_s >= 0).all() and (made.end_s <= duration_s).all()
        assert (made.start_s < made.end_s).all()
        assert ((made.label >= 0) & (made.label < trial.task.store.info.num_classes)).all()


@pytest.fixture(scope="module")
def another_process() -> Iterator[ProcessPoolExecutor]:
    """A new process, the same for all methods."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def decoded(name: str, found: Any, grid: Grid, duration_s: float) -> Segments:
    """The detections of a video with the default decode parameters."""
    method = load(name)
    return method.decode(found, grid, duration_s, method.decode_params())


def test_scores_decode_in_a_process_without_the_model(
    trial: Trial, another_process: ProcessPoolExecutor
) -> None:
    task = trial.task
    found = trial.score(task.score_ids)[0]
    given = (task.method.name, found, task.store.info.grid, task.store.duration_s(found.id))
    here = decoded(*given)
    there = another_process.submit(decoded, *given).result(HANG_S)
    for name in ("start_s", "end_s", "label", "score"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_documented_and_its_default_allowed(name: str) -> None:
    method: Method = load(name)
    for params in (method.train_params, method.decode_params):
        for field in dataclasses.fields(params):
            assert field.metadata.get("doc") and field.metadata.get("source"), field.name
            allowed: Any = field.metadata["allowed"]
            if allowed is None:
                continue
            if isinstance(field.default, str | bool):
                assert field.default in allowed, field.name
            else:
                assert allowed[0] <= field.default <= allowed[1], field.name


def test_draws_have_one_shape_on_every_worker(trial: Trial) -> None:
    fewest = int((trial.batches.split.pair_t >= 0).sum(axis=1).argmin())
    most = int((trial.batches.split.pair_t >= 0).sum(axis=1).argmax())
    split = copy.copy(trial.batches.split)
    split.pair_t = split.pair_t.copy()
    split.pair_t[fewest, 1:] = -1  # one video of the batch has a single point left
    batches = Batches(
        trial.task, Worker(rank=1, world_size=2), split=split, plan=trial.batches.plan,
        labels=trial.batches.labels, memory=trial.batches.memory,
    )  # fmt: skip
    part = batches.training(trial.step, np.array([most, fewest]))
    assert part.ids == (split.ids[fewest],)
    assert part.most_pairs == (split.pair_t[most] >= 0).sum() > 1
