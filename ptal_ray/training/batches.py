"""The batches of a training split, on the device of the trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.sampling import BatchPlan
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import Batch, Known, Pseudo, StageResult
from ptal_ray.training.labels import LabelTable
from ptal_ray.training.task import Task
from ptal_ray.training.worker import Worker


def check_divides(plan: BatchPlan, workers: int, method: str) -> None:
    """Check that the workers of a trial can share its batches.

    Args:
        plan: of the training split.
        workers: number of workers of a trial.
        method: for the message.

    Raises:
        ConfigError: a batch cannot be divided among them.
    """
    size = plan.batch_size
    if size % workers:
        videos, asked = max(len(rows) for rows in plan.groups), plan.asked_batch_size
        fewer = f" ({asked} are asked for)" if videos < asked else ""
        choose = f"a multiple of {workers} up to {videos}, or " if workers <= videos else ""
        raise ConfigError(
            f"batch size of {method}: {size} videos{fewer} do not divide among {workers} workers; "
            f"choose {choose}fewer resources.workers"
        )


class Batches:
    """Makes a batch from the rows of a step.

    Args:
        task: with the train parameters that determine crops.
        worker: this worker of the trial.
        split: the training videos.
        plan: the rows and crops of each step.
        labels: their pseudo-labels.
        memory: the result of `Method.memory`; empty without one.
    """

    def __init__(
        self,
        task: Task,
        worker: Worker,
        *,
        split: PackedSplit,
        plan: BatchPlan,
        labels: LabelTable,
        memory: Pseudo,
    ) -> None:
        self.hp, self.worker = task.hp, worker
        self.split, self.plan, self.labels, self.memory = split, plan, labels, memory
        self.device = split.device
        columns = (split.point_t, split.point_label, split.pair_t, split.pair_class)
        self.point_t, self.point_label, self.pair_t, self.pair_class = (
            torch.from_numpy(column).to(self.device) for column in columns
        )

    def training(self, step: int, rows: NDArray[np.int64]) -> Batch:
        """This worker's part of the global batch of `rows` at `step`."""
        mine = self.worker.mine(np.arange(len(rows)))
        kept = self.split.lengths[rows]
        start = np.zeros_like(kept)
        if kept.max() > self.hp.max_snippets or self.hp.crop_shortest < 1:
            start, kept = self.plan.crops(
                step, kept, self.split.point_t[rows], self.hp.max_snippets,
                self.hp.crop_shortest, self.hp.crop_points,
            )  # fmt: skip
        # A number of the global batch, so that draws have the same shape with any number of
        # workers.
        most = self._most_pairs(rows)
        draw = None
        if self.hp.resample_to and self.hp.resampling == "random":
            draw = self.plan.draws(step, self.hp.resample_to)[mine]
        return self._assemble(rows[mine], start[mine], kept[mine], int(kept.max()), most, draw)

    def whole(self, rows: NDArray[np.int64]) -> Batch:
        """The uncropped videos of `rows`."""
        lengths = self.split.lengths[rows]
        longest, most = int(lengths.max()), self._most_pairs(rows)
        return self._assemble(rows, np.zeros_like(rows), lengths, longest, most)

    def _assemble(
        self,
        rows: NDArray[np.int64],
        start: NDArray[np.int64],
        kept: NDArray[np.int64],
        longest: int,
        most_pairs: int,
        draw: NDArray[np.float64] | None = None,
    ) -> Batch:
        index, crop_t, length = (
            torch.from_numpy(a).to(self.device, non_blocking=True) for a in (rows, start, kept)
        )
        point_t = _cropped(self.point_t[index], crop_t, length)
        pair_t = _cropped(self.pair_t[index], crop_t, length)
        label = self.point_label[index].float() * (point_t >= 0)[..., None]
        return Batch(
            ids=tuple(self.split.ids[r] for r in rows),
            features=self.split.features(rows, start, kept, longest, draw),
            mask=torch.arange(longest, device=self.device)[None] < length[:, None],
            point_t=point_t,
            point_label=label,
            pair_t=pair_t,
            pair_class=self.pair_class[index].masked_fill(pair_t < 0, -1),
            most_pairs=most_pairs,
            crop_t=crop_t,
            pseudo=self.labels.at(index),
        )

    def _most_pairs(self, rows: NDArray[np.int64]) -> int:
        return int((self.split.pair_t[rows] >= 0).sum(axis=1).max(initial=1))


def batches_of(task: Task, worker: Worker, before: StageResult | None) -> Batches:
    """The batches of a trial, with the labels that are made before training.

    Args:
        task: the task.
        worker: this worker of the trial.
        before: the result of the earlier stage; None without one.

    Raises:
        ConfigError: a batch cannot be divided among the workers.
    """
    method, hp = task.method, task.hp
    split = task.training_split(worker.device)
    plan = batch_plan(task, worker, [np.arange(len(task.ids))])
    labels = LabelTable(len(task.ids), hp.refresh_every, worker.device)
    known = Known(split=split, stage=before, truth=task.truth, labelled=task.labelled)
    memory = method.memory(known, hp) if method.memory else {}
    if method.labels is not None:
        made = method.labels(known, hp)
        labels.fill(made)
        if method.groups is not None:
            plan = batch_plan(task, worker, method.groups(made, hp))
    on_device = {name: value.to(worker.device) for name, value in memory.items()}
    return Batches(task, worker, split=split, plan=plan, labels=labels, memory=on_device)


def batch_plan(task: Task, worker: Worker, groups: list[NDArray[Any]]) -> BatchPlan:
    """The order of the videos.

    Args:
        task: the task.
        worker: one of those that share a batch.
        groups: rows of each kind of video; every batch has all kinds.

    Raises:
        ConfigError: a batch cannot be divided among the workers.
    """
    plan = BatchPlan(
        groups=tuple(groups), asked_batch_size=task.hp.batch_size, seed=task.config.seed
    )
    check_divides(plan, worker.world_size, task.config.method)
    return plan


def _cropped(moment_t: Tensor, crop_t: Tensor, length: Tensor) -> Tensor:
    """(B, K) snippets of the whole videos, as snippets of their crops; -1 outside."""
    moved = moment_t - crop_t[:, None]
    outside = (moment_t < 0) | (moved < 0) | (moved >= length[:, None])
    return moved.masked_fill(outside, -1)
