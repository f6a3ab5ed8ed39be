"""Pseudo-labels of snippets: background in the gaps, actions beside points of the same class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.ops.seeds import gap_background, nearest


def mine(
    fused: Tensor, mask: Tensor, label: Tensor, *, background_above: float, action_below: float
) -> tuple[Tensor, Tensor]:
    """Background snippets, and the classes of action snippets.

    The background of a gap between annotated snippets is all from the first to the last snippet
    with b > `background_above`, or else the one with the highest b. A snippet with b <=
    `action_below` gets its best class if a neighbouring annotated snippet has this class and there
    is no background between the two.

    Args:
        fused: (B, T, C + 1) scores.
        mask: (B, T).
        label: (B, T, C) multi-hot, of annotated snippets.

    Returns:
        (B, T) bool background and (B, T, C) float32 classes, the annotated ones included. Videos
        without points have neither.

    Source: FS-PTAL Algorithm 2, corrected: annotated snippets are never background, every gap is
        processed, and action snippets stay inside their gap.
    """
    annotated = label.any(dim=2)
    some = annotated.any(dim=1, keepdim=True)
    background = fused[..., -1]
    first, last = gap_background(
        background, background > background_above, mask, annotated, mask.shape[1]
    )
    t = torch.arange(mask.shape[1], device=mask.device)
    mined = (t >= first) & (t <= last) & mask & ~annotated & some
    free = (background <= action_below) & mask & ~annotated & ~mined
    best = F.one_hot(fused[..., :-1].argmax(dim=2), label.shape[2]).to(label.dtype)
    left, right = nearest(annotated)
    agreed = torch.zeros_like(annotated)
    for neighbour, open_ in ((left, t < first), (right, t > last)):
        rows = torch.arange(len(label), device=label.device)[:, None]
        shared = (best * label[rows, neighbour.clamp(0, len(t) - 1)]).any(dim=2)
        agreed |= shared & open_ & (neighbour >= 0) & (neighbour < len(t))
    return mined, label + best * (agreed & free)[..., None]
