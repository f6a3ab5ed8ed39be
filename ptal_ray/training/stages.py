"""A trial with its earlier stages, trained or read from the cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cache, partial

import numpy as np
import torch

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.types import Scores
from ptal_ray.methods.method import DecodeParams, Stage, StageResult, TrainParams
from ptal_ray.training.batches import batch_plan
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.scoring import scores_of
from ptal_ray.training.stage_cache import Key, stage_result
from ptal_ray.training.task import Task
from ptal_ray.training.trial import Trial
from ptal_ray.training.worker import Worker

Kept = Callable[..., StageResult]
Watch = Callable[[Trial, int, str], AbstractContextManager[None]]


def unwatched(trial: Trial, last: int, what: str) -> AbstractContextManager[None]:
    """Shows nothing of how far a trial is on its way to step `last`; `what` names its stage."""
    return nullcontext()


def start(
    config: TrialConfig,
    device: str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    watch: Watch = unwatched,
) -> Trial:
    """A trial that is ready to train.

    Trains its earlier stages, unless their results are stored in `config.stages`.

    Args:
        config: the configuration.
        device: "cpu", "cuda" or "cuda:k".
        rank, world_size: of this worker, see `Worker`.
        watch: a context manager that shows the progress of an earlier stage.

    Raises:
        ConfigError: the batch cannot be divided among the workers, or the method cannot train on
            this dataset with these parameters.
        DataError: a split is empty, or a stored stage is damaged.
        DivergedError: an earlier stage diverged.
    """
    worker = Worker(device=torch.device(device), rank=rank, world_size=world_size)
    return _start(config, worker, watch)


def _start(config: TrialConfig, worker: Worker, watch: Watch) -> Trial:
    task = Task.of(config)
    batch_plan(task, worker, [np.arange(len(task.ids))])  # before stages are trained for long
    if task.method.check is not None:
        task.method.check(task.store, task.hp)
    stage, began = task.method.stage, time.perf_counter()
    before = _left_by(stage, task, worker, watch) if stage else None
    return Trial(task, worker, before, time.perf_counter() - began)


def _left_by(
    stage: Stage[TrainParams], task: Task, worker: Worker, watch: Watch
) -> StageResult | None:
    """The result of the earlier stage of a task; None if it has no steps.

    Raises:
        DivergedError: the stage diverged.
    """
    steps = int(getattr(task.hp, stage.steps))
    if not steps:
        return None
    config = replace(
        task.config, method=stage.method, train=asdict(stage.params(task.hp)), decode={},
        decode_domains={}, report_steps=(steps,),
    )  # fmt: skip
    ids = task.ids if stage.scored else ()
    # requested twice if no folder stores it
    made = cache(partial(_trained, config, worker, ids, stage.starts, watch))
    key = (config, task.store.info.content_hash, ids)
    kept = partial(stage_result, key, made, worker)
    if stage.rules is None:
        return kept()
    return _predicted(task, worker, stage.rules(task.hp), key, kept)


def _trained(
    config: TrialConfig, worker: Worker, ids: tuple[str, ...], weights: bool, watch: Watch
) -> StageResult:
    """Train a stage and score `ids` with it."""
    trial, last = _start(config, worker, watch), config.report_steps[-1]
    with watch(trial, last, f"stage {config.method}"):
        trial.train_until(last)
        judged = trial.learner.judged
        left = {name: p.detach().cpu() for name, p in judged.named_parameters()} if weights else {}
        scores = scores_of(trial.task, worker, judged, ids, trial.step) if ids else []
    return StageResult(scores=scores, weights=left)


def _predicted(
    task: Task, worker: Worker, rules: DecodeParams, key: Key, kept: Kept
) -> StageResult:
    """The weights of a stage, and its predictions on the videos without annotations.

    Args:
        task: of the next trial, whose method decodes.
        worker: this worker of the trial.
        rules: decode parameters.
        key: of the stage.
        kept: its result, with or without (`scored=False`) its scores.
    """
    config, content, _ = key
    annotated, duration = set(task.annotated), task.store.duration_s
    grids = {
        id: stored_grid(task.store, id, task.hp.resample_to)
        for id in task.ids
        if id not in annotated
    }

    def predicted() -> StageResult:
        """Decode the scores of the stage for the videos without annotations."""
        scores = kept().scores  # every worker calls it, rank 0 decodes
        found = {
            s.id: task.method.decode(s, grids[s.id], duration(s.id), rules)
            for s in scores
            if s.id in grids and worker.rank == 0
        }
        columns = [Scores(id=id, arrays=asdict(own)) for id, own in found.items()]
        return StageResult(scores=columns, weights={})

    by_rules = (replace(config, decode=asdict(rules)), content, tuple(grids))
    found = stage_result(by_rules, predicted, worker)
    return replace(kept(scored=False), scores=found.scores)
