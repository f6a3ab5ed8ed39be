"""Scores of snippets, cached once, and detections from them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.lacp.model import Lacp
from ptal_ray.methods.lacp.params import LacpDecode, LacpTrain
from ptal_ray.methods.method import Batch
from ptal_ray.ops import mil
from ptal_ray.ops.nms import hard_nms
from ptal_ray.ops.score_runs import detections, score_arrays


def network(model: Lacp, features: Tensor, mask: Tensor, hp: LacpTrain) -> dict[str, Tensor]:
    """Fused "score" (B, T, C + 1) and "video" (B, C)."""
    _, score = model(features)
    return {
        "score": mil.fuse(score),
        "video": mil.video_scores(score[..., :-1], mask, hp.r_act),
    }


def scores(model: Lacp, batch: Batch, hp: LacpTrain) -> list[Scores]:
    """Fused snippet scores and video scores, see `score_arrays`."""
    made = network(model, batch.features, batch.mask, hp)
    found = score_arrays(made["score"], made["video"], batch.mask.sum(dim=1).tolist())
    return [Scores(id=id, arrays=arrays) for id, arrays in zip(batch.ids, found, strict=True)]


def decode(found: Scores, grid: Grid, duration_s: float, hp: LacpDecode) -> Segments:
    """Runs above thresholds with score inner - outer + gamma * video score, then suppression.

    Deviation: detections are clipped to the video.

    Source: LACP code; golden lacp_decode.
    """
    low = np.arange(0, hp.score_stop, hp.score_step)
    high = np.arange(hp.action_start, hp.action_stop, hp.action_step)
    segments = detections(found, grid, duration_s, hp, low, high)
    return hard_nms(segments, hp.nms_tiou, hp.nms_plus_one_second)
