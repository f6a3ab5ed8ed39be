"""The losses of FS-PTAL on a batch, without a loop over videos, classes or segments."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.fsptal.extension import extend
from ptal_ray.methods.fsptal.mining import mine
from ptal_ray.methods.fsptal.model import Fsptal
from ptal_ray.methods.fsptal.params import FsptalTrain
from ptal_ray.methods.method import Batch, Step
from ptal_ray.ops import mil

FOCAL_GAMMA = 2


def loss(model: Fsptal, batch: Batch, hp: FsptalTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "video", "point", "score" and "separation", means over videos.

    The last two start after `refresh_every` steps, when segments of a trained model exist.

    Source: FS-PTAL Eq. 15.
    """
    video = extend(batch, tau1=hp.tau1, tau2=hp.tau2, reach=hp.label_reach)
    kept = _dropout(model, video.mask, hp, step)
    embedded, score = model(video.features, kept)
    with torch.autocast(score.device.type, enabled=False):
        fused, present = mil.fuse(score), batch.video_label
        mined, action = mine_labels(fused.detach(), video.mask, video.label, hp)
        terms = {
            "video": video_loss(model, embedded, score, video.mask, present, hp),
            "point": point_loss(fused, mined, action),
        }
    segments_wanted = hp.score_weight or hp.separation_weight
    if segments_wanted and step.index >= hp.refresh_every:
        assert batch.pseudo is not None
        length = video.mask.sum(dim=1)
        start, end, label = (
            batch.pseudo[name][:, : batch.most_pairs] for name in ("start_t", "end_t", "label")
        )
        if hp.score_weight:
            runs = mil.Runs(start=start, end=end, label=label.clamp(min=0), action=start >= 0)
            terms["score"] = score_loss(fused, runs, length, hp)
        if hp.separation_weight:
            number = segment_numbers(start, end, video.mask)
            acted = video.label if hp.separation_actions == "points" else action
            draw = step.rand(*video.mask.shape)
            rest, is_rest = compared(mined, draw, hp.separation_points)
            at, is_acted = compared(acted.any(dim=2), draw, hp.separation_points)
            apart = model.separation(embedded, video.mask, number, torch.cat([rest, at], dim=1))
            label = acted.gather(1, at[..., None].expand(-1, -1, acted.shape[2]))
            terms["separation"] = separation_loss(apart, is_rest, is_acted, label, hp)
    weight = {
        "video": hp.video_weight, "point": hp.point_weight, "score": hp.score_weight,
        "separation": hp.separation_weight,
    }  # fmt: skip
    return {name: weight[name] * value.mean() for name, value in terms.items() if weight[name]}


def _dropout(model: Fsptal, mask: Tensor, hp: FsptalTrain, step: Step) -> Tensor | None:
    if not hp.dropout:
        return None
    videos, length = mask.shape
    return step.kept(videos, model.classifier.in_channels, length, drop=hp.dropout)


def mine_labels(
    fused: Tensor, mask: Tensor, label: Tensor, hp: FsptalTrain
) -> tuple[Tensor, Tensor]:
    """Background snippets (B, T) and action classes (B, T, C); without mining only the points."""
    above, below = hp.background_threshold, hp.action_threshold
    if not hp.mining:
        above, below = 2.0, -1.0  # beyond the range of scores
    return mine(fused, mask, label, background_above=above, action_below=below)


def video_loss(
    model: Fsptal, embedded: Tensor, score: Tensor, mask: Tensor, present: Tensor, hp: FsptalTrain
) -> Tensor:
    """(B,) cross entropy of Q_f with (y, 0) and of Q_v with (y, 1).

    Source: FS-PTAL Eq. 2 to 4, over all C + 1 channels.
    """
    foreground = model.foreground_scores(embedded, mask, present.sum(dim=1) > 1)
    best = mil.video_scores(score, mask, hp.r_act)
    entropy = mil.cross_entropy(foreground, F.pad(present, (0, 1)))
    entropy = entropy + mil.cross_entropy(best, F.pad(present, (0, 1), value=1.0))
    return entropy.mean(dim=1) if hp.reduction == "mean" else entropy.sum(dim=1)


def point_loss(fused: Tensor, mined: Tensor, action: Tensor) -> Tensor:
    """(B,) focal losses of action and background snippets, original and mined.

    Source: FS-PTAL Eq. 5 to 7.
    """
    target = F.pad(action, (0, 1))
    rest = F.pad(torch.zeros_like(action), (0, 1), value=1.0)
    return mil.focal_loss(fused, target, action.any(dim=2), FOCAL_GAMMA) + mil.focal_loss(
        fused, rest, mined, FOCAL_GAMMA
    )


def score_loss(fused: Tensor, runs: mil.Runs, length: Tensor, hp: FsptalTrain) -> Tensor:
    """(B,) mean over present classes of (1 - mean contrast of its action segments)^2.

    Args:
        fused: (B, T, C + 1) scores.
        runs: the action segments. Unlike in LACP, one over the whole video counts too; its
            surroundings are empty.
        length: (B,) snippets of each video.
        hp: train parameters.

    Source: FS-PTAL Eq. 9.
    """
    classes = fused.shape[2] - 1
    contrast = mil.score_contrast(fused[..., :-1], runs, length, hp.delta, hp.clipped != "none")
    acted = runs.action.to(contrast)
    total = contrast.new_zeros(len(fused), classes).scatter_add(1, runs.label, contrast * acted)
    number = torch.zeros_like(total).scatter_add(1, runs.label, acted)
    return mil.mean_where((1 - total / number.clamp(min=1)) ** 2, number > 0)


def segment_numbers(start: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """(B, T) a number for each action segment and each stretch of background; -1 on padding.

    Args:
        start, end: (B, S) action segments, both ends included, -1 for none.
        mask: (B, T).
    """
    t = torch.arange(mask.shape[1], device=mask.device)
    inside = (t >= start[..., None]) & (t <= end[..., None]) & (start >= 0)[..., None]
    place = torch.arange(1, start.shape[1] + 1, device=mask.device)[:, None]
    action = (inside * place).amax(dim=1)  # 0 in background
    begins = (action[:, 1:] == 0) & (action[:, :-1] > 0)
    stretch = F.pad(begins, (1, 0)).cumsum(dim=1) + start.shape[1] + 1
    return torch.where(action > 0, action, stretch).masked_fill(~mask, -1)


def compared(member: Tensor, draw: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(B, K) snippets that the separation compares, and whether each is a member; K <= `most`.

    Args:
        member: (B, T) bool.
        draw: (B, T) uniform; of many members, those with the highest values are compared.
        most: per video.
    """
    best, index = torch.where(member, draw + 1, 0.0).topk(min(most, member.shape[1]), dim=1)
    return index, best > 0


def separation_loss(
    apart: Tensor, is_rest: Tensor, is_acted: Tensor, label: Tensor, hp: FsptalTrain
) -> Tensor:
    """(B,) hinge losses: snippets are similar within background and within action, dissimilar
    across.

    Args:
        apart: (B, 2 K, D_ebd) of norm 1: background, then action snippets.
        is_rest, is_acted: (B, K) which of them exist.
        label: (B, K, C) classes of the action snippets.

    Source: FS-PTAL Eq. 10 to 14.
    """
    e_rest, e_acted = apart.chunk(2, dim=1)
    most = is_rest.shape[1]
    alike = is_acted[:, None].expand(-1, most, -1)
    if hp.separation_pairs == "class":
        alike = alike & (label @ label.mT > 0)
    with torch.autocast(apart.device.type, enabled=False):  # near 1 bfloat16 has steps of 0.004
        return (
            _together(e_rest, is_rest[:, None].expand(-1, most, -1), is_rest, hp.psi_same)
            + _together(e_acted, alike, is_acted, hp.psi_same)
            + _across(e_acted, e_rest, is_acted, is_rest, hp.psi_diff)
        )


def _together(vector: Tensor, partner: Tensor, exists: Tensor, least: float) -> Tensor:
    """(B,) mean of max(least - lowest similarity to a partner, 0); 0 without partners."""
    itself = torch.eye(vector.shape[1], dtype=torch.bool, device=vector.device)
    partner = partner & ~itself
    nearest = (vector @ vector.mT).masked_fill(~partner, torch.inf).amin(dim=2)
    counted = exists & partner.any(dim=2)
    return mil.mean_where((least - nearest).clamp(min=0), counted)


def _across(
    acted: Tensor, rest: Tensor, is_acted: Tensor, is_rest: Tensor, greatest: float
) -> Tensor:
    """(B,) mean over actions of max(highest similarity to background - greatest, 0)."""
    nearest = (acted @ rest.mT).masked_fill(~is_rest[:, None], -torch.inf).amax(dim=2)
    return mil.mean_where((nearest - greatest).clamp(min=0), is_acted & is_rest.any(1)[:, None])
