"""The three losses on all levels of the pyramid, without a loop over videos or positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.method import Batch, Pseudo, Step
from ptal_ray.methods.potloc.model import Potloc
from ptal_ray.methods.potloc.params import PotlocTrain
from ptal_ray.ops import mil
from ptal_ray.ops.pyramid import drop_path
from ptal_ray.ops.seeds import gap_background

TIE_T = 1e-3  # segments whose lengths differ by less are both targets of a position


def loss(model: Potloc, batch: Batch, hp: PotlocTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "video", "action" and "background".

    Source: POTLoc Eq. 8 to 11; golden potloc_model.
    """
    features, mask = model.padded(batch.features, batch.mask)
    kept = drop_path(step.rand(len(mask), model.pyramid.branches), hp.drop_path)
    scores, masks = model(features, mask, kept)
    assert batch.pseudo is not None
    with torch.autocast(mask.device.type, enabled=False):
        segments = cropped(batch.pseudo, batch.crop_t, batch.mask.sum(dim=1))
        return level_losses(scores, masks, segments, batch.video_label, hp)


def cropped(pseudo: Pseudo, crop_t: Tensor, length: Tensor) -> Pseudo:
    """The segments of a crop, in its snippets and rounded, without those whose point is outside.

    Args:
        pseudo: "point_t", "start_t", "end_t", "label" (B, N), of whole videos.
        crop_t, length: (B,) first snippet and number of snippets of the crop.

    Deviation: a point behind the left edge of the last snippet is inside, too.

    Source: POTLoc code; golden potloc_model truncate_feats.
    """
    first, last = crop_t[:, None], (length - 1)[:, None]
    point = pseudo["point_t"] - first
    inside = (pseudo["label"] >= 0) & (point >= 0) & (point < length[:, None])
    edges = {
        name: torch.minimum((pseudo[name] - first).round().clamp(min=0), last)
        for name in ("start_t", "end_t")
    }
    label = pseudo["label"].masked_fill(~inside, -1)
    return {"point_t": torch.minimum(point.round(), last), **edges, "label": label}


def level_losses(
    scores: list[Tensor],
    masks: list[Tensor],
    segments: Pseudo,
    video_label: Tensor,
    hp: PotlocTrain,
) -> dict[str, Tensor]:
    """The weighted terms, 0-d.

    Args:
        scores: of each level (B, T_l, C + 1).
        masks: of each level (B, T_l) bool.
        segments: see `cropped`.
        video_label: (B, C) multi-hot.
    """
    fused = [mil.fuse(score) for score in scores]
    sizes = [m.shape[1] for m in masks]
    target = targets(segments, sizes, video_label.shape[1], hp)
    pooled = [torch.ones_like(m) for m in masks] if hp.reference_faults else masks
    video = torch.stack(
        [
            mil.video_scores(score[..., :-1], mask, hp.r_act, video_label)
            for score, mask in zip(scores, pooled, strict=True)
        ]
    ).mean(dim=0)
    mined = [
        mined_background(f[..., -1].detach(), m, t.any(dim=2) & m, hp.background_threshold)
        for f, m, t in zip(fused, masks, torch.split(target, sizes, dim=1), strict=True)
    ]
    every, chosen = torch.cat(fused, dim=1), torch.cat(mined, dim=1)
    positive = target.any(dim=2) & torch.cat(masks, dim=1)
    none = F.pad(every.new_zeros(every.shape[2] - 1), (0, 1), value=1.0).expand_as(every)
    background = mil.focal_loss(every, none, chosen, hp.focal_gamma)
    if hp.reference_faults:
        number = chosen.sum(dim=1).clamp(min=1)
        background = (background * number).mean() * (1 / number).mean()
    action = mil.focal_loss(every, F.pad(target, (0, 1)).float(), positive, hp.focal_gamma)
    return {
        "video": hp.video_weight * mil.cross_entropy(video, video_label).mean(),
        "action": hp.action_weight * action.mean(),
        "background": hp.background_weight * background.mean(),
    }


def targets(segments: Pseudo, sizes: list[int], num_classes: int, hp: PotlocTrain) -> Tensor:
    """(B, sum T_l, C) bool: target classes of each position of each level.

    A position i of level l, at snippet t = i 2^l, is positive for a segment (s, e) around point p
    if max(p - r 2^l, s) < t < min(p + r 2^l, e); the shortest of several segments is its target.
    Without `sampling` all positions of the segment are positive. With points only, the position of
    each level that contains the point is positive.

    Args:
        segments: "point_t", "start_t", "end_t", "label" (B, N).
        sizes: T_l of each level.

    Source: POTLoc Eq. 7; golden potloc_model label_sampling.
    """
    device = segments["label"].device
    t = torch.cat([torch.arange(n, device=device) * 2**level for level, n in enumerate(sizes)])
    reach = torch.cat(
        [torch.full((n,), 2.0**level, device=device) for level, n in enumerate(sizes)]
    )
    point, start, end = (segments[k][:, None] for k in ("point_t", "start_t", "end_t"))
    t, reach = t[None, :, None], reach[None, :, None]
    if hp.supervision == "points":
        within = (point - reach < t) & (t <= point)
    else:
        within = (start < t) & (t < end)
        if hp.sampling:
            within &= (point - hp.radius * reach < t) & (t < point + hp.radius * reach)
    within &= segments["label"][:, None] >= 0  # (B, sum T_l, N)
    length = torch.where(within, end - start, torch.inf)
    shortest = within & (length <= length.amin(dim=2, keepdim=True) + TIE_T)
    label = F.one_hot(segments["label"].clamp(min=0), num_classes)
    return (shortest.float() @ label.float()) > 0


def mined_background(
    background: Tensor, mask: Tensor, positive: Tensor, threshold: float
) -> Tensor:
    """(B, T) bool: background positions of a level between and around its positives.

    Between two positives these are all positions from the first to the last one with a high
    background score, or else the one with the highest. Before the first and after the last positive
    the same holds, but there are none if no score is high. A video without positives has none.

    Args:
        background: (B, T) scores b.
        mask, positive: (B, T) bool.
        threshold: th_bg.

    Source: POTLoc code; golden potloc_model pseudo_background.
    """
    high = background >= threshold
    first, last = gap_background(background, high, mask, positive, mask.shape[1])
    gap, number = positive.cumsum(dim=1), positive.sum(dim=1, keepdim=True)
    outer = (gap == 0) | (gap == number)
    found = high.gather(1, first.clamp(max=mask.shape[1] - 1))  # otherwise it is only the highest
    t = torch.arange(mask.shape[1], device=mask.device)
    mined = (t >= first) & (t <= last) & mask & ~positive & (number > 0)
    return mined & (found | ~outer)
