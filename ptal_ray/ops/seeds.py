"""Background and action seeds around points, as LACP mines them, for a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mine_background(background: Tensor, mask: Tensor, point_t: Tensor, threshold: float) -> Tensor:
    """Background snippets between the points, at least one in every gap.

    In the gap between two annotated snippets all from the first to the last snippet whose
    background score reaches `threshold`, or else the one of the highest score. In front of the
    first point everything up to the last such snippet, behind the last point everything from the
    first one on.

    Args:
        background: (B, T) scores b.
        mask: (B, T), True on real snippets, which come first.
        point_t: (B, P) annotated snippets, one entry a snippet, -1 where none.
        threshold: th_bg.

    Returns:
        (B, T) bool; nothing in a video without points.

    Source: LACP code; golden lacp_seeds.
    """
    annotated, gap = _gaps(mask, point_t)
    free = mask & ~annotated
    size, t = point_t.shape[1] + 1, torch.arange(mask.shape[1], device=mask.device)
    t = t.expand_as(mask)
    high = free & (background >= threshold)
    far = mask.shape[1]
    first = _per_gap(torch.where(high, t, far), gap, size, "amin", far)
    last = _per_gap(torch.where(high, t, -1), gap, size, "amax", -1)
    score = background.masked_fill(~free, -torch.inf)
    peak = _per_gap(score, gap, size, "amax", -torch.inf)
    at_peak = free & (score == peak.gather(1, gap))
    best = _per_gap(torch.where(at_peak, t, far), gap, size, "amin", far)
    first, last = torch.where(last < 0, best, first), torch.where(last < 0, best, last)
    number = annotated.sum(dim=1, keepdim=True)
    place = torch.arange(size, device=mask.device)
    first = torch.where(place == 0, 0, first)
    last = torch.where(place == number, far, last)
    inside = (t >= first.gather(1, gap)) & (t <= last.gather(1, gap))
    return inside & free & (number > 0)


def extend_points(
    background: Tensor, mined: Tensor, mask: Tensor, point_t: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """How far the label of each point reaches: while b <= threshold and not mined background.

    Args:
        background: (B, T) scores b.
        mined: (B, T) what `mine_background` found.
        mask: (B, T), True on real snippets.
        point_t: (B, P), -1 where none.
        threshold: th_act.

    Returns:
        (B, P) first and last snippet, both included; -1 where no point.

    Source: LACP code; golden lacp_seeds.
    """
    annotated, _ = _gaps(mask, point_t)
    stops = (background > threshold) | mined | annotated | ~mask
    length = mask.shape[1]
    t = torch.arange(length, device=mask.device).expand_as(mask)
    before = F.pad(torch.where(stops, t, -1).cummax(dim=1).values, (1, 0), value=-1)
    after = torch.where(stops, t, length).flip(1).cummin(dim=1).values.flip(1)
    after = F.pad(after, (0, 1), value=length)
    at = point_t.clamp(min=0)
    missing = point_t < 0
    first = before.gather(1, at) + 1
    last = after.gather(1, at + 1) - 1
    return first.masked_fill(missing, -1), last.masked_fill(missing, -1)


def _gaps(mask: Tensor, point_t: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) annotated snippets, and for each snippet how many of them are not behind it."""
    number = torch.zeros((len(mask), mask.shape[1] + 1), dtype=torch.int64, device=mask.device)
    place = torch.where(point_t < 0, mask.shape[1], point_t)
    annotated = number.scatter(1, place, 1)[:, :-1]
    return annotated > 0, annotated.cumsum(dim=1)


def _per_gap(value: Tensor, gap: Tensor, size: int, reduce: str, empty: float) -> Tensor:
    start = torch.full((len(value), size), empty, dtype=value.dtype, device=value.device)
    return start.scatter_reduce(1, gap, value, reduce)
