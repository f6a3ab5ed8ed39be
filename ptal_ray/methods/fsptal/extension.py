"""Label extension: videos are stretched around their points, and labels spread over the copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ptal_ray.methods.method import Batch
from ptal_ray.ops.seeds import annotated_snippets


@dataclass(frozen=True, kw_only=True)
class Extended:
    """A batch on its stretched time axis of T' snippets.

    Args:
        position: (B, T') position of each new snippet on the old axis, where snippet j is at j.
        mask: (B, T'), True on real snippets.
        features: (B, T', D), zero on padding.
        first_t: (B, P) first new snippet with the label of each point; -1 for none.
        label: (B, T', C) float32 multi-hot.
    """

    position: Tensor
    mask: Tensor
    features: Tensor
    first_t: Tensor
    label: Tensor


def extend(batch: Batch, *, tau1: float, tau2: float, reach: float) -> Extended:
    """Stretch annotated snippets by tau1 and their neighbours by tau2.

    Args:
        batch: whole videos.
        tau1, tau2: new snippets per annotated and per neighbouring one; 1, 1 changes no time.
        reach: vartheta, old snippets within which a new one gets a point's label.

    Source: FS-PTAL Eq. 1, Algorithm 1; the sampling is ASM-Loc's, golden dynamic_sampling.
    """
    annotated = annotated_snippets(batch.mask, batch.point_t)
    beside = torch.zeros_like(annotated)
    beside[:, 1:] |= annotated[:, :-1]
    beside[:, :-1] |= annotated[:, 1:]
    weight = torch.where(annotated, tau1, torch.where(beside, tau2, 1.0)).double()
    growth = (tau1 - 1) + 2 * (tau2 - 1)
    size = batch.mask.shape[1] + max(0, math.ceil(batch.most_pairs * growth))
    position, mask = positions(weight, batch.mask, size)
    features = interpolate(batch.features, batch.mask, position) * mask[..., None]
    first, last = _labelled(position, mask, batch.point_t, reach)
    t = torch.arange(size, device=mask.device)
    inside = (t >= first[..., None]) & (t <= last[..., None]) & (batch.point_t >= 0)[..., None]
    label = (inside.float().mT @ batch.point_label > 0).float()
    return Extended(position=position, mask=mask, features=features, first_t=first, label=label)


def positions(weight: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The positions at which the cumulative weights reach 1, 2, ..., round(their sum).

    Args:
        weight: (B, T) new snippets per snippet, float64.
        mask: (B, T).
        size: T', at least the rounded sum.

    Returns:
        (B, T') positions on the old axis, where snippet j is at j, and whether they exist.
    """
    total = (weight * mask).cumsum(dim=1)
    wanted = torch.arange(1, size + 1, device=weight.device, dtype=weight.dtype)
    wanted = wanted.expand(len(weight), -1).contiguous()
    last = (mask.sum(dim=1) - 1)[:, None]
    snippet = torch.minimum(torch.searchsorted(total.contiguous(), wanted - 1e-9), last)
    before = (total - weight * mask).gather(1, snippet)
    position = snippet - 1 + (wanted - before) / weight.gather(1, snippet)
    number = torch.round(total[:, -1:])
    return position, wanted <= number


def interpolate(features: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    """(B, T', D) features at fractional snippets, extrapolated linearly beyond both ends."""
    last = (mask.sum(dim=1) - 1)[:, None]
    left = torch.minimum(position.floor().clamp(min=0), (last - 1).clamp(min=0)).long()
    right = torch.minimum(left + 1, last)
    share = (position - left)[..., None].to(features.dtype)
    rows = torch.arange(len(features), device=features.device)[:, None]
    return torch.lerp(features[rows, left], features[rows, right], share)


def _labelled(
    position: Tensor, mask: Tensor, point_t: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    """(B, P) first and last new snippet within `reach` of each point, or the nearest one."""
    away = (position[:, None] - point_t[..., None]).abs()
    away = away.masked_fill(~mask[:, None], torch.inf)  # (B, P, T')
    near = away <= reach
    near |= (away == away.amin(dim=2, keepdim=True)) & ~near.any(dim=2, keepdim=True)
    t = torch.arange(mask.shape[1], device=mask.device)
    first = torch.where(near, t, mask.shape[1]).amin(dim=2)
    last = torch.where(near, t, -1).amax(dim=2)
    missing = point_t < 0
    return first.masked_fill(missing, -1), last.masked_fill(missing, -1)
