"""Losses from points only: of videos, of annotated snippets and of the background."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ptal_ray.ops import mil
from ptal_ray.ops.seeds import mine_background


def snippet_losses(
    fused: Tensor,
    video: Tensor,
    mask: Tensor,
    point_t: Tensor,
    point_label: Tensor,
    *,
    gamma: float,
    threshold: float,
) -> dict[str, Tensor]:
    """Terms "video", "point" and "background", each (B,).

    Args:
        fused: (B, T, C + 1) scores.
        video: (B, C) scores.
        mask: (B, T) bool, True on real snippets.
        point_t: (B, P) annotated snippets, one entry per snippet, -1 for none.
        point_label: (B, P, C) multi-hot classes.
        gamma: focal exponent.
        threshold: th_bg, background score from which a snippet between points is background.

    Source: LACP Eq. 3 to 5; code; golden lacp_loss, potloc_model base_loss.
    """
    target = snippet_targets(mask, point_t, point_label)
    mined = mine_background(fused[..., -1].detach(), mask, point_t, threshold)
    background = F.pad(fused.new_zeros(fused.shape[2] - 1), (0, 1), value=1.0)
    return {
        "video": mil.cross_entropy(video, point_label.amax(dim=1)).mean(dim=1),
        "point": mil.focal_loss(fused, target, target.any(dim=2), gamma),
        "background": mil.focal_loss(fused, background.expand_as(fused), mined, gamma),
    }


def snippet_targets(mask: Tensor, point_t: Tensor, point_label: Tensor) -> Tensor:
    """(B, T, C + 1) classes of annotated snippets; the background is 0. Arguments as above."""
    shape = (len(mask), mask.shape[1] + 1, point_label.shape[2])
    place = point_t.masked_fill(point_t < 0, mask.shape[1])[..., None]
    target = point_label.new_zeros(shape).scatter(1, place.expand(-1, -1, shape[2]), point_label)
    return F.pad(target[:, :-1], (0, 1))
