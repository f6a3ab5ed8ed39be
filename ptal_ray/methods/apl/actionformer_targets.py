"""Targets of the positions of ActionFormer's levels, from the instances of a crop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.method import Pseudo

TIE_T = 1e-3  # instances whose lengths differ by less are both targets of a position
LAST_REACH = 10000.0  # of the coarsest level, snippets


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets of all positions, levels concatenated.

    Args:
        label: (B, N, C) float32 multi-hot.
        edges: (B, N, 2) distances to start and end of the instance, in positions of the level.
        positive: (B, N) bool.
        ignored: (B, N) bool, positions in an ignored instance.
    """

    label: Tensor
    edges: Tensor
    positive: Tensor
    ignored: Tensor


def targets(
    instances: Pseudo, sizes: list[int], num_classes: int, first_range: float, radius: float
) -> Targets:
    """The target instance of each position: the shortest one with its centre near.

    Position i of level l, at t = i 2^l, is positive for an instance (s, e) with centre c if max(c -
    radius 2^l, s) < t < min(c + radius 2^l, e) and the distance to the farther edge is in the range
    of the level: first_range 2^(l - 1) to first_range 2^l; the first range starts at 0, the last is
    unbounded.

    Args:
        instances: see `instances.cropped`.
        sizes: T_l of each level.
        num_classes: C.
        first_range: the largest distance that level 0 regresses, snippets.
        radius: in positions of the level.

    Source: ActionFormer code; golden actionformer/tiny_model.
    """
    device = instances["label"].device
    t, stride, low, high = level_points(sizes, first_range, device)
    start, end = instances["start_t"][:, None], instances["end_t"][:, None]  # (B, 1, K)
    left, right = t[:, None] - start, end - t[:, None]  # (B, N, K)
    centre, reach = (start + end) / 2, radius * stride[:, None]
    near = (t[:, None] > torch.maximum(centre - reach, start)) & (
        t[:, None] < torch.minimum(centre + reach, end)
    )
    farther = torch.maximum(left, right)
    known = (instances["label"] >= 0)[:, None]
    taught = known & ~instances["ignored"][:, None]
    within = near & (farther >= low[:, None]) & (farther <= high[:, None]) & taught
    length = torch.where(within, end - start, torch.inf)
    least, nearest = length.min(dim=2)
    shortest = within & (length <= least[..., None] + TIE_T)
    hot = F.one_hot(instances["label"].clamp(min=0), num_classes).float()
    label = (shortest.float() @ hot).clamp(max=1.0)
    edges = torch.stack([left, right], dim=3).gather(
        2, nearest[..., None, None].expand(-1, -1, 1, 2)
    )[:, :, 0]
    untaught = known & instances["ignored"][:, None] & (left >= 0) & (right >= 0)
    positive = within.any(dim=2)
    return Targets(
        label=label,
        edges=(edges / stride[:, None]).float(),
        positive=positive,
        ignored=untaught.any(dim=2) & ~positive,
    )


def level_points(
    sizes: list[int], first_range: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) snippet, stride, smallest and largest distance of each position, level by level."""
    columns = []
    for level, size in enumerate(sizes):
        stride = 2.0**level
        low = first_range * stride / 2 if level else 0.0
        high = first_range * stride if level < len(sizes) - 1 else LAST_REACH
        t = torch.arange(size, device=device) * stride
        columns.append(torch.stack([t, *(torch.full_like(t, v) for v in (stride, low, high))]))
    t, stride_t, low_t, high_t = torch.cat(columns, dim=1)
    return t, stride_t, low_t, high_t
