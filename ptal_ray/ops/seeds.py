"""Background and action seeds around points, mined as in LACP, for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mine_background(background: Tensor, mask: Tensor, point_t: Tensor, threshold: float) -> Tensor:
    """Background snippets between the points, at least one in every gap.

    Between two annotated snippets these are all snippets from the first to the last one whose
    background score reaches `threshold`, or else the one with the highest score. Before the first
    point they are all snippets up to the last such one, after the last point all from the first
    such one on.

    Args:
        background: (B, T) scores b.
        mask: (B, T), True on real snippets, which come first.
        point_t: (B, P) annotated snippets, one entry per snippet, -1 for none.
        threshold: th_bg.

    Returns:
        (B, T) bool; nothing in a video without points.

    Source: LACP code; golden lacp_seeds.
    """
    annotated = annotated_snippets(mask, point_t)
    gap = annotated.cumsum(dim=1)
    first, last = gap_background(
        background, background >= threshold, mask, annotated, point_t.shape[1]
    )
    number = annotated.sum(dim=1, keepdim=True)
    t = torch.arange(mask.shape[1], device=mask.device)
    first = torch.where(gap == 0, 0, first)
    last = torch.where(gap == number, mask.shape[1], last)
    return (t >= first) & (t <= last) & mask & ~annotated & (number > 0)


def gap_background(
    background: Tensor, high: Tensor, mask: Tensor, annotated: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """For each snippet, the first and last background snippet of its gap between annotated
    snippets.

    The snippets with `high`, or else the first one with the highest score.

    Args:
        background: (B, T) scores b.
        high: (B, T) bool.
        mask: (B, T), True on real snippets.
        annotated: (B, T) bool.
        most: maximal number of annotated snippets per video.

    Returns:
        Two (B, T) snippets; T and -1, or T and T, in a gap without a snippet.
    """
    size, far, gap = most + 1, mask.shape[1], annotated.cumsum(dim=1)
    free = mask & ~annotated
    t = torch.arange(far, device=mask.device).expand_as(mask)
    first = _per_gap(torch.where(high & free, t, far), gap, size, "amin", far)
    last = _per_gap(torch.where(high & free, t, -1), gap, size, "amax", -1)
    score = background.masked_fill(~free, -torch.inf)
    peak = _per_gap(score, gap, size, "amax", -torch.inf)
    at_peak = free & (score == peak.gather(1, gap))
    best = _per_gap(torch.where(at_peak, t, far), gap, size, "amin", far)
    first, last = torch.where(last < 0, best, first), torch.where(last < 0, best, last)
    return first.gather(1, gap), last.gather(1, gap)


def extend_points(
    background: Tensor, mined: Tensor, mask: Tensor, point_t: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Extent of the label of each point: while b <= threshold and not mined background.

    Args:
        background: (B, T) scores b.
        mined: (B, T) result of `mine_background`.
        mask: (B, T), True on real snippets.
        point_t: (B, P), -1 for none.
        threshold: th_act.

    Returns:
        (B, P) first and last snippet, both included; -1 for no point.

    Source: LACP code; golden lacp_seeds.
    """
    annotated = annotated_snippets(mask, point_t)
    stops = (background > threshold) | mined | annotated | ~mask
    before, after = nearest(stops)
    before, after = F.pad(before, (1, 0), value=-1), F.pad(after, (0, 1), value=mask.shape[1])
    at = point_t.clamp(min=0)
    missing = point_t < 0
    first = before.gather(1, at) + 1
    last = after.gather(1, at + 1) - 1
    return first.masked_fill(missing, -1), last.masked_fill(missing, -1)


def nearest(marked: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) nearest marked snippet at or before each one, or -1, and at or after it, or T."""
    length = marked.shape[1]
    t = torch.arange(length, device=marked.device).expand_as(marked)
    before = torch.where(marked, t, -1).cummax(dim=1).values
    after = torch.where(marked, t, length).flip(1).cummin(dim=1).values.flip(1)
    return before, after


def annotated_snippets(mask: Tensor, point_t: Tensor) -> Tensor:
    """(B, T) bool from (B, P) snippets, -1 for none."""
    found = torch.zeros((len(mask), mask.shape[1] + 1), dtype=torch.bool, device=mask.device)
    place = torch.where(point_t < 0, mask.shape[1], point_t)
    return found.scatter(1, place, True)[:, :-1]


def _per_gap(value: Tensor, gap: Tensor, size: int, reduce: str, empty: float) -> Tensor:
    start = torch.full((len(value), size), empty, dtype=value.dtype, device=value.device)
    return start.scatter_reduce(1, gap, value, reduce)
