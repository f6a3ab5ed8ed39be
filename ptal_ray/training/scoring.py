"""Scores of videos with a model's present weights: what decoding and its search work on."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.types import Scores
from ptal_ray.methods.method import AnyMethod, Batch, TrainParams

Shared = TypeVar("Shared")
SCORE_SNIPPETS = 4096  # padded snippets scored at once; bounds memory


def score_videos(
    method: AnyMethod,
    model: nn.Module,
    split: PackedSplit,
    hp: TrainParams,
    precision: str = "fp32",
) -> list[Scores]:
    """The method's scores of every video of `split`, in its order, without gradients."""
    model.eval()
    found: dict[int, Scores] = {}
    bf16 = precision == "bf16"
    with torch.no_grad(), torch.autocast(split.device.type, torch.bfloat16, enabled=bf16):
        for rows in by_length(split.lengths, SCORE_SNIPPETS):
            grids = [split.grids[r] for r in rows]
            scored = method.scores(model, whole_videos(split, rows), hp, grids)
            found |= {int(row): score for row, score in zip(rows, scored, strict=True)}
    return [found[row] for row in range(len(split.ids))]


def gathered(scored: list[Scores], rank: int, world_size: int) -> list[Scores]:
    """The scores that all workers of a trial have, on rank 0; none on the others."""
    if world_size == 1:
        return scored
    parts: list[list[Scores] | None] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(scored, parts)
    return [s for part in parts or [] for s in part or []]


def from_first(value: Shared, world_size: int) -> Shared:
    """What rank 0 has, on every worker of a trial."""
    shared = [value]
    if world_size > 1:
        dist.broadcast_object_list(shared, src=0)
    return shared[0]


def not_finite(scored: list[Scores]) -> str | None:
    """The id of a video that has a score which is no finite number, or None."""
    for s in scored:
        if not all(np.isfinite(a).all() for a in s.arrays.values() if a.dtype.kind == "f"):
            return s.id
    return None


def whole_videos(split: PackedSplit, rows: NDArray[np.int64]) -> Batch:
    """A batch of uncropped videos, with the point labels that `split` has read."""
    lengths = torch.from_numpy(split.lengths[rows]).to(split.device)
    kept = split.lengths[rows]
    longest = int(kept.max())
    zero = torch.zeros(len(rows), dtype=torch.int64, device=split.device)
    return Batch(
        ids=tuple(split.ids[r] for r in rows),
        features=split.features(rows, np.zeros_like(kept), kept, longest),
        mask=torch.arange(longest, device=split.device)[None] < lengths[:, None],
        point_t=torch.from_numpy(split.point_t[rows]).to(split.device),
        point_label=torch.from_numpy(split.point_label[rows]).to(split.device).float(),
        pair_t=torch.from_numpy(split.pair_t[rows]).to(split.device),
        pair_class=torch.from_numpy(split.pair_class[rows]).to(split.device),
        most_pairs=int((split.pair_t[rows] >= 0).sum(axis=1).max()),
        crop_t=zero,
    )


def by_length(lengths: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Groups of rows of similar length, each of at most `most` padded snippets, or one video."""
    groups: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable"):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(int(row))
        else:
            groups.append([int(row)])
    return [np.array(group) for group in groups]
