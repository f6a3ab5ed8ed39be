"""Scores of proposals, cached once, and detections from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.apn.model import Apn
from ptal_ray.methods.apn.params import ApnDecode, ApnTrain
from ptal_ray.methods.apn.proposals import edges, pair_candidates, with_whole_videos
from ptal_ray.methods.method import Batch
from ptal_ray.ops.nms import hard_nms, soft_nms

CHUNK = 2048  # proposals evaluated at once; limits memory
KEPT_CLASSES = 8  # classes per proposal, by class probability times confidence


def scores(model: Apn, batch: Batch, hp: ApnTrain) -> list[Scores]:
    """The best proposals of each video with all inputs of decoding; see `decode`.

    Arrays by name, K proposals by p_s * p_e descending and the best classes of each:
    "start_t", "end_t", "start_score", "end_score", "height" (K,); "label", "class_score",
    "text_score" (K, min(C, 8)).
    """
    x = model.embed(batch.features, batch.mask)
    probability = model.boundaries(x, batch.mask)
    found = pair_candidates(
        probability[:, 0], probability[:, 1], batch.mask, min_duration_t=hp.min_duration_t,
        max_duration_t=model.longest_t, top=hp.score_candidates,
    )  # fmt: skip
    found = with_whole_videos(found, probability[:, 0], probability[:, 1], batch.mask)
    step = max(1, CHUNK // len(x))
    parts = []
    for first in range(0, found.start_t.shape[1], step):
        chosen = slice(first, first + step)
        parts.append(model.evaluate(x, *edges(found.start_t[:, chosen], found.end_t[:, chosen])))
    class_score, text_score = (torch.cat(p, dim=1).sigmoid() for p in zip(*parts, strict=True))
    if not hp.text_weight:
        text_score = torch.ones_like(text_score)  # its score was not trained
    kept = (class_score * text_score).topk(min(KEPT_CLASSES, class_score.shape[2]), dim=2).indices
    columns: dict[str, Tensor] = {
        "start_t": found.start_t.int(),
        "end_t": found.end_t.int(),
        "start_score": found.start_score,
        "end_score": found.end_score,
        "height": torch.minimum(found.start_height, found.end_height),
        "label": kept.short(),
        "class_score": class_score.gather(2, kept),
        "text_score": text_score.gather(2, kept),
    }
    on_host = {name: value.cpu().numpy() for name, value in columns.items()}
    valid = found.valid.cpu().numpy()
    return [
        Scores(id=id, arrays={name: value[row][valid[row]] for name, value in on_host.items()})
        for row, id in enumerate(batch.ids)
    ]


def decode(found: Scores, grid: Grid, duration_s: float, hp: ApnDecode) -> Segments:
    """Detections: (p_s p_e)^a c^b s^g for the best classes of each proposal, then suppression.

    Boundaries are the centres of their cells: the target of a boundary at x covers the two cells
    around x equally, so centres are unbiased. The proposal of a video of one snippet is the
    snippet.

    Source: APN section 3.4; exponents PROPOSED.
    """
    arrays = found.arrays
    peak = (arrays["height"] >= 1) | (arrays["height"] > hp.peak_threshold)
    chosen = np.flatnonzero(peak)[: hp.max_candidates]
    boundary = arrays["start_score"][chosen].astype(np.float64) * arrays["end_score"][chosen]
    score = (
        boundary[:, None] ** hp.boundary_exponent
        * arrays["class_score"][chosen].astype(np.float64) ** hp.class_exponent
        * arrays["text_score"][chosen].astype(np.float64) ** hp.text_exponent
    )
    classes = np.argsort(-score, axis=1, kind="stable")[:, : hp.top_classes]
    start_s, end_s = (
        np.clip(grid.seconds(edge), 0.0, duration_s)
        for edge in edges(arrays["start_t"][chosen], arrays["end_t"][chosen])
    )
    repeated = classes.shape[1]
    segments = Segments(
        start_s=np.repeat(start_s, repeated),
        end_s=np.repeat(end_s, repeated),
        label=np.take_along_axis(arrays["label"][chosen], classes, 1).ravel().astype(np.int64),
        score=np.take_along_axis(score, classes, 1).ravel(),
    )
    segments = segments.take(segments.end_s > segments.start_s)
    suppressed = (
        hard_nms(segments, hp.nms_tiou)
        if hp.nms_kind == "hard"
        else soft_nms(segments, hp.nms_tiou)
    )
    return suppressed.take(slice(hp.max_detections))
