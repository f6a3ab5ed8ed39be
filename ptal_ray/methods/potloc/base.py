"""The base model: its proposals become the pseudo-labels. It is not evaluated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.method import Batch, Method, Step
from ptal_ray.methods.potloc.params import BaseDecode, BaseTrain
from ptal_ray.ops import mil
from ptal_ray.ops.nms import hard_nms
from ptal_ray.ops.point_losses import snippet_losses
from ptal_ray.ops.score_runs import detections, score_arrays


class Base(nn.Module):
    """One temporal convolution and a classifier of snippets.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: BaseTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: BaseTrain) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(feature_dim, hp.embed_dim, hp.kernel, padding="same")
        self.classifier = nn.Conv1d(hp.embed_dim, num_classes + 1, 1, bias=False)

    def forward(self, features: Tensor, kept: Tensor | None = None, share: float = 1.0) -> Tensor:
        """(B, T, D) -> scores (B, T, C + 1), undefined on padding.

        Args:
            features: zero on padding.
            kept: (B, H, T) bool, channels for the classifier; None for all.
            share: the expected fraction of kept channels.
        """
        embedded = F.relu(self.embedding(features.mT))
        if kept is not None:
            embedded = embedded * kept
        return torch.sigmoid(self.classifier(embedded).float() / share).mT


def build(store: FeatureStore, hp: BaseTrain) -> Base:
    """The network for a dataset."""
    return Base(store.info.feature_dim, store.info.num_classes, hp)


def loss(model: Base, batch: Batch, hp: BaseTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "video", "point" and "background", means over videos.

    Source: POTLoc code; golden potloc_model base_loss.
    """
    shape = (len(batch.mask), model.classifier.in_channels, batch.mask.shape[1])
    score = model(batch.features, step.kept(*shape, drop=hp.dropout), 1 - hp.dropout)
    with torch.autocast(score.device.type, enabled=False):
        fused = mil.fuse(score)
        video = mil.video_scores(score[..., :-1], batch.mask, hp.r_act, batch.video_label)
        terms = snippet_losses(
            fused, video, batch.mask, batch.point_t, batch.point_label,
            gamma=hp.focal_gamma, threshold=hp.background_threshold,
        )  # fmt: skip
    weight = {
        "video": hp.video_weight, "point": hp.point_weight, "background": hp.background_weight,
    }  # fmt: skip
    return {name: weight[name] * value.mean() for name, value in terms.items()}


def scores(model: Base, batch: Batch, hp: BaseTrain) -> list[Scores]:
    """Fused snippet scores and video scores, see `score_arrays`."""
    score = model(batch.features)
    video = mil.video_scores(score[..., :-1], batch.mask, hp.r_act)
    found = score_arrays(mil.fuse(score), video, batch.mask.sum(dim=1).tolist())
    return [Scores(id=id, arrays=arrays) for id, arrays in zip(batch.ids, found, strict=True)]


def decode(found: Scores, grid: Grid, duration_s: float, hp: BaseDecode) -> Segments:
    """Proposals: runs above thresholds with their outer-inner contrast, then suppression."""
    low, high = np.arange(0, hp.score_stop, 0.025), np.arange(hp.action_start, 1, 0.025)
    proposals = detections(found, grid, duration_s, hp, low, high)
    return hard_nms(proposals, hp.nms_tiou, hp.nms_plus_one_second)


METHOD = Method(
    name="potloc.base",
    supervision="point",
    train_params=BaseTrain,
    decode_params=BaseDecode,
    build=build,
    loss=loss,
    scores=scores,
    decode=decode,
)
