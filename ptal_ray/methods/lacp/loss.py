"""The five losses of LACP on a batch, without a loop over videos, classes or runs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ptal_ray.methods.lacp.model import Lacp
from ptal_ray.methods.lacp.params import LacpTrain
from ptal_ray.methods.method import Batch, Step
from ptal_ray.ops import mil
from ptal_ray.ops.point_losses import snippet_losses


def loss(model: Lacp, batch: Batch, hp: LacpTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "video", "point", "background", "score" and "feature", means over videos.

    The last two start after `refresh_every` steps, when sequences of a trained model exist.

    Source: LACP Eq. 10; code.
    """
    features, score = model(batch.features, _dropout(model, batch, hp, step))
    with torch.autocast(score.device.type, enabled=False):
        fused = mil.fuse(score)
        video = mil.video_scores(score[..., :-1], batch.mask, hp.r_act, batch.video_label)
        terms = snippet_losses(
            fused, video, batch.mask, batch.point_t, batch.point_label,
            gamma=hp.focal_gamma, threshold=hp.background_threshold,
        )  # fmt: skip
        if step.index >= hp.refresh_every and (hp.score_weight or hp.feature_weight):
            runs = sequence_runs(batch, hp)
            terms |= sequence_losses(features.float(), fused, runs, batch, hp, step)
    weight = {
        "video": hp.video_weight, "point": hp.point_weight, "background": hp.background_weight,
        "score": hp.score_weight, "feature": hp.feature_weight,
    }  # fmt: skip
    return {name: weight[name] * value.mean() for name, value in terms.items() if weight[name]}


def _dropout(model: Lacp, batch: Batch, hp: LacpTrain, step: Step) -> Tensor | None:
    if not hp.dropout:
        return None
    videos, length = batch.mask.shape
    return step.kept(videos, model.classifier.in_channels, length, drop=hp.dropout)


def sequence_runs(batch: Batch, hp: LacpTrain) -> mil.Runs:
    """The runs of the pseudo-sequences inside the crops."""
    assert batch.pseudo is not None
    length = batch.mask.sum(dim=1)
    start = batch.pseudo["start_t"][:, : batch.most_pairs]
    end = batch.pseudo["end_t"][:, : batch.most_pairs] - batch.crop_t[:, None]
    exists = (start >= 0) & (end >= 0)
    start = (start - batch.crop_t[:, None]).clamp(min=0)
    exists &= start < length[:, None]
    end = torch.minimum(end, (length - 1)[:, None])
    runs = mil.runs_from_actions(
        torch.where(exists, start, -1), torch.where(exists, end, -1),
        batch.pseudo["label"][:, : batch.most_pairs], length,
    )  # fmt: skip
    return cut_short(runs, length) if hp.reference_faults else runs


def cut_short(runs: mil.Runs, length: Tensor) -> mil.Runs:
    """Runs as in the released code: without the last snippet of the video."""
    end = torch.minimum(runs.end, (length - 2)[:, None])
    gone = runs.start > end
    return replace(
        runs, start=runs.start.masked_fill(gone, -1), end=end.masked_fill(gone, -1),
        action=runs.action & ~gone,
    )  # fmt: skip


def sequence_losses(
    features: Tensor, fused: Tensor, runs: mil.Runs, batch: Batch, hp: LacpTrain, step: Step
) -> dict[str, Tensor]:
    """Terms "score" and "feature", each (B,).

    Args:
        features: (B, T, H).
        fused: (B, T, C + 1) scores.
    """
    length, classes = batch.mask.sum(dim=1), fused.shape[2] - 1
    missing = 1 - mil.score_contrast(fused[..., :-1], runs, length, hp.delta)
    acted = mil.mean_where(missing, runs.action)
    rested = mil.mean_where(missing, runs.valid & ~runs.action)
    draw = step.rand(*runs.start.shape, hp.feature_samples)
    vector = mil.run_features(features, runs, draw)
    by_class = mil.feature_contrast(vector, runs, hp.feature_temperature, classes)
    if hp.reference_faults:
        by_class = last_class(by_class)
    return {
        "score": (acted + rested) ** 2,
        "feature": mil.mean_where(by_class.nan_to_num(), ~by_class.isnan()),
    }


def last_class(by_class: Tensor) -> Tensor:
    """(B, C) with only the last number of each row, the others NaN, as in the released code."""
    counted = ~by_class.isnan()
    behind = counted.flip(1).cumsum(dim=1).flip(1)
    return by_class.masked_fill(behind > 1, torch.nan)
