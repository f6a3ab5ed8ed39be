"""The inputs of a method in one training step: its batch and the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Named tensors, each (B, ...): the labels of a refresh, one row per video.
Pseudo = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Videos padded to a common length, on the training device.

    Args:
        ids: B video ids.
        features: (B, T, D) float32.
        mask: (B, T) bool, True on real snippets.
        point_t: (B, P) int64, snippet of each annotated point, ascending, one entry per snippet;
            -1 pads. Inside the crop.
        point_label: (B, P, C) float32 multi-hot classes of that snippet's points.
        pair_t, pair_class: (B, Q) int64, the same points as one entry per snippet and class,
            ascending; -1 pads, and marks those outside the crop.
        most_pairs: the largest number of entries of a video in the batch, at least 1, on the host.
        crop_t: (B,) int64, first snippet of the crop in the whole video (0 if uncropped).
        pseudo: the newest output of `Method.refresh` for these videos, or of `Method.labels`, in
            snippets of the WHOLE video; None if the method has neither.
    """

    ids: tuple[str, ...]
    features: Tensor
    mask: Tensor
    point_t: Tensor
    point_label: Tensor
    pair_t: Tensor
    pair_class: Tensor
    most_pairs: int
    crop_t: Tensor
    pseudo: Pseudo | None = None

    @property
    def video_label(self) -> Tensor:
        """(B, C) float32 multi-hot classes of the video, from its points."""
        return self.point_label.amax(dim=1)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step for a loss, the same on every worker of a trial.

    A loss that takes its randomness from `rand` and its normalisers from `mean_over_workers` has
    the same gradient for a global batch with any number of workers.

    Args:
        index: optimiser steps done so far.
        epoch: passes over the training split done so far, fractional.
        generator: on the training device, in the same state on every worker.
        rank, world_size: of this worker; it has the rows [rank * B, (rank + 1) * B) of the global
            batch.
        split_pseudo: the newest pseudo-labels of the whole training split, each tensor (V, ...);
            rows not refreshed yet are zero. None if the method has no labels.
        memory: the result of `Method.memory`, or None.
    """

    index: int
    epoch: float
    generator: torch.Generator
    split_pseudo: Pseudo | None = None
    memory: Pseudo | None = None
    rank: int = 0
    world_size: int = 1

    def rand(self, batch_size: int, *shape: int) -> Tensor:
        """(batch_size, *shape) uniform in [0, 1): this worker's rows of one global draw."""
        total = (batch_size * self.world_size, *shape)
        draw = torch.rand(total, generator=self.generator, device=self.generator.device)
        return draw[self.rank * batch_size : (self.rank + 1) * batch_size]

    def kept(self, batch_size: int, *shape: int, drop: float) -> Tensor:
        """(batch_size, *shape) bool, False with probability `drop`, in multiples of 2^-16.

        This worker's rows of one global draw, as `rand`, in half its time.
        """
        total = batch_size * self.world_size * math.prod(shape)
        bits = torch.empty(-(-total // 4), dtype=torch.int64, device=self.generator.device)
        bits.random_(-(2**63), None, generator=self.generator)
        draw = bits.view(torch.int16)[:total] >= round(drop * 2**16) - 2**15
        rows = draw.view(batch_size * self.world_size, *shape)
        return rows[self.rank * batch_size : (self.rank + 1) * batch_size]

    def mean_over_workers(self, count: Tensor) -> Tensor:
        """Mean of a detached 0-d or (K,) tensor over the workers; itself with one worker.

        Gradients are averaged over workers, so `local_sum / mean_over_workers(local_count)`
        has the gradient of the global mean.
        """
        if self.world_size == 1:
            return count.detach()
        total = count.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def every_row(self, value: Tensor) -> Tensor:
        """(B, ...) of this worker -> the rows of the global batch, with their gradients.

        If every worker computes a term from all rows, its gradient counts once.
        """
        if self.world_size == 1:
            return value
        made: Tensor = _Gathered.apply(value, self.rank, self.world_size)  # type: ignore[no-untyped-call]
        return made


class _Gathered(torch.autograd.Function):
    """The rows of all workers; the gradient of a row is the sum over all workers."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rank: int, world_size: int) -> Tensor:
        """(B, ...) of this worker -> (B * world_size, ...) of all."""
        ctx.rows = slice(rank * len(value), (rank + 1) * len(value))
        parts = [torch.empty_like(value) for _ in range(world_size)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The sum of the gradients of all workers, for the rows of this one."""
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rows], None, None
