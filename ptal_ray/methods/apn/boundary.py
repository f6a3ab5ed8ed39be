"""Targets and loss of the boundary detector, as in BSN's temporal evaluation module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def zone_targets(start: Tensor, end: Tensor, valid: Tensor, length: int, width: Tensor) -> Tensor:
    """Overlap of each unit cell with instances [start, end], the largest over the instances.

    Args:
        start, end: (B, P) edges in snippets.
        valid: (B, P) bool, whether an instance counts.
        length: T, number of cells; cell t covers [t, t + 1).
        width: (B, P); 0 uses the instance itself, else a zone of this width around `start`.

    Returns:
        (B, T) in [0, 1].
    """
    low = torch.where(width > 0, start - width / 2, start)[..., None]
    high = torch.where(width > 0, start + width / 2, end)[..., None]
    cell = torch.arange(length, device=start.device, dtype=low.dtype)
    overlap = torch.minimum(cell + 1, high) - torch.maximum(cell, low)
    return (overlap.clamp(0, 1) * valid[..., None]).amax(dim=1)


def boundary_targets(
    start: Tensor,
    end: Tensor,
    valid: Tensor,
    length: int,
    zone_ratio: float,
    narrowest_t: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(start, end, action) targets, each (B, T).

    Args:
        start, end: (B, P) edges of the instances in snippets.
        valid: (B, P).
        length: T.
        zone_ratio: width of a boundary zone over the length of its instance.
        narrowest_t: minimal width of a zone in snippets.

    Source: BSN; golden bsn/tem_labels.
    """
    width = (zone_ratio * (end - start)).clamp(min=narrowest_t)
    whole = torch.zeros_like(width)
    return (
        zone_targets(start, end, valid, length, width),
        zone_targets(end, end, valid, length, width),
        zone_targets(start, end, valid, length, whole),
    )


def weighted_binary_loss(
    probability: Tensor,
    target: Tensor,
    mask: Tensor,
    mean_over_workers: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """BSN's balanced cross entropy over the cells of a batch; 0 without a positive cell.

    Args:
        probability, target: (B, T) in [0, 1]; a cell is positive if its target exceeds 0.5.
        mask: (B, T), cells that count.
        mean_over_workers: makes the two counts global, see `Step.mean_over_workers`.

    Source: BSN; golden bsn/tem_loss.
    """
    positive = (target > 0.5) & mask
    negative = (target <= 0.5) & mask
    counts = mean_over_workers(torch.stack([mask.sum(), positive.sum()]).float())
    number, positives = counts[0].clamp(min=1), counts[1]
    ratio = number / positives.clamp(min=1e-6)
    log = torch.log(probability.float() + 1e-5)
    log_not = torch.log(1 - probability.float() + 1e-5)
    weight_not = 0.5 * ratio / (ratio - 1).clamp(min=1e-6)
    total = 0.5 * ratio * (log * positive).sum() + weight_not * (log_not * negative).sum()
    return torch.where(positives > 0, -total / number, torch.zeros_like(total))
