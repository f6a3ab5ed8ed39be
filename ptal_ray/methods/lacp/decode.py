"""Scores of snippets, cached once, and detections from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.lacp.model import Lacp
from ptal_ray.methods.lacp.params import LacpDecode
from ptal_ray.methods.method import Batch
from ptal_ray.ops import mil
from ptal_ray.ops.nms import hard_nms
from ptal_ray.ops.score_runs import score_runs, upsample


def scores(model: Lacp, batch: Batch, hp: Any, grids: list[Grid]) -> list[Scores]:
    """What decoding needs of each video.

    Arrays by name: "video" (C,) video scores, "score" (T, C) fused, "action" (T,) 1 - b.
    """
    _, score = model(batch.features, batch.mask)
    fused = mil.fuse(score)
    video = mil.video_scores(score[..., :-1], batch.mask, hp.r_act).cpu().numpy()
    on_host = fused.cpu().numpy()
    return [
        Scores(
            id=id,
            arrays={
                "video": video[row],
                "score": on_host[row, :length, :-1],
                "action": 1 - on_host[row, :length, -1],
            },
        )
        for row, (id, length) in enumerate(
            zip(batch.ids, batch.mask.sum(dim=1).tolist(), strict=True)
        )
    ]


def decode(found: Scores, grid: Grid, duration_s: float, hp: LacpDecode) -> Segments:
    """Runs above thresholds, rated by inner - outer + gamma * video score, then suppression.

    Deviation: detections are clipped to the video.

    Source: LACP code; golden lacp_decode.
    """
    video = found.arrays["video"]
    classes = np.flatnonzero(video >= hp.class_threshold)
    if not len(classes):
        classes = np.array([video.argmax()])
    low = np.arange(0, hp.score_stop, hp.score_step)
    high = np.arange(hp.action_start, hp.action_stop, hp.action_step)
    action = upsample(found.arrays["action"].astype(np.float64), hp.scale)
    kept = []
    for label in classes:
        score = upsample(found.arrays["score"][:, label].astype(np.float64), hp.scale)
        start, end, contrast = score_runs(score, action, low, high, hp.outer_ratio)
        segments = Segments(
            start_s=grid.seconds(start / hp.scale),
            end_s=np.minimum(grid.seconds((end + 1) / hp.scale), duration_s),
            label=np.full(len(start), label, np.int64),
            score=contrast + hp.video_weight * float(video[label]),
        )
        kept.append(segments.take(segments.end_s > segments.start_s))
    return hard_nms(Segments.concatenate(kept), hp.nms_tiou, hp.nms_plus_one_second)
