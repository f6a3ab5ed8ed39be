"""Scores of all proposals, cached once, and detections from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.apl import external
from ptal_ray.methods.apl.bmn_network import CLASSIFICATION, REGRESSION, TND, Bmn, BmnOutput
from ptal_ray.methods.apl.bmn_params import BmnDecode, BmnTrain
from ptal_ray.methods.method import Batch
from ptal_ray.ops.nms import gated_soft_nms

CHUNK = 16  # windows scored at once; limits memory


def scores(model: Bmn, batch: Batch, hp: BmnTrain) -> list[Scores]:
    """For each video the proposals of all its windows, and its classes.

    Arrays by name: "start_t", "end_t" (M,) int32 edges in snippets of the video, "score" (M,),
    "video" (C,), "length_t" () snippets of the video.
    """
    lengths = batch.mask.sum(dim=1).tolist()
    window = hp.window or max(lengths)
    plan = [(row, at) for row, n in enumerate(lengths) for at in window_starts(n, window)]
    columns: list[list[list[NDArray[Any]]]] = [[] for _ in lengths]
    for at in range(0, len(plan), CHUNK):
        part = plan[at : at + CHUNK]
        for (row, _), found in zip(part, _windows(model, batch, part, window, hp), strict=True):
            columns[row].append(found)
    video = model.video_scores(model.base(batch.features, batch.mask), batch.mask).cpu().numpy()
    if hp.external_scores:
        video = np.stack([external.best(hp.external_scores, id) for id in batch.ids])
    made = []
    for row, (id, parts) in enumerate(zip(batch.ids, columns, strict=True)):
        start, end, score = (np.concatenate(column) for column in zip(*parts, strict=True))
        arrays = {
            "start_t": start, "end_t": end, "score": score, "video": video[row],
            "length_t": np.array(lengths[row]),
        }  # fmt: skip
        made.append(Scores(id=id, arrays=arrays))
    return made


def network(model: Bmn, features: Tensor, mask: Tensor, hp: BmnTrain) -> dict[str, Tensor]:
    """For a window or a resampled video: "start_t" and "end_t" (K,) edges of the cells, "score" (B,
    K), "inside" (B, K) bool (whether a cell is a proposal), and "video" (B, C).
    """
    made = model(features, mask)
    score, inside = proposal_scores(made, mask, hp)
    return {
        "start_t": made.first.clone(),
        "end_t": made.last + 1,
        "score": score,
        "inside": inside,
        "video": made.video,
    }


def network_lengths(hp: BmnTrain) -> tuple[int, int]:
    """Only the length of a window or of resampled videos, which determines the samples of all
    cells."""
    return int(hp.window or hp.resample_to), 0


def window_starts(length: int, window: int) -> list[int]:
    """First snippets of the windows of a video, which overlap by half; the last one is at its end.

    PROPOSED: the last window is shifted back instead of padded.
    """
    step = max(window // 2, 1)
    last = max(length - window, 0)
    return [*range(0, last, step), last]


def _windows(
    model: Bmn, batch: Batch, part: list[tuple[int, int]], window: int, hp: BmnTrain
) -> list[list[NDArray[Any]]]:
    """For each window the edges of its proposals, in snippets of the video, and their scores."""
    device = batch.mask.device
    row, at = torch.tensor(part, device=device).T[..., None]
    t = at + torch.arange(window, device=device)
    length = batch.mask.sum(dim=1)[row]
    mask = t < length
    t = t.clamp(max=batch.mask.shape[1] - 1)
    made = model(batch.features[row, t] * mask[..., None], mask)
    score, inside = proposal_scores(made, mask, hp)
    edges = [(at + first).int() for first in (made.first, made.last + 1)]
    start, end, value, kept = (v.cpu().numpy() for v in (*edges, score, inside))
    return [[v[k][kept[k]] for v in (start, end, value)] for k in range(len(part))]


def proposal_scores(made: BmnOutput, mask: Tensor, hp: BmnTrain) -> tuple[Tensor, Tensor]:
    """(B, K) score of each cell, and whether the cell is a proposal.

    The end of a cell is scored at the next snippet, so a cell at the end of the video is no
    proposal.

    Args:
        made: of videos or windows.
        mask: (B, T) bool.
        hp: BmnTrain.

    Source: BMN code; the joint score PROPOSED.
    """
    behind = (made.last + 1).clamp(max=mask.shape[1] - 1)
    inside = mask[:, behind] & (made.last + 1 < mask.shape[1])
    tiou = made.maps[:, REGRESSION]
    if hp.joint:
        tiou = (tiou - made.maps[:, TND]).clamp(min=hp.eps)
    boundaries = made.start[:, made.first] * made.end[:, behind]
    return boundaries * made.maps[:, CLASSIFICATION] * tiou, inside


def decode(found: Scores, grid: Grid, duration_s: float, hp: BmnDecode) -> Segments:
    """The best proposals after suppression, each with the best classes of the video.

    The score of a detection is that of its proposal times that of the class. The last remaining
    proposal is never picked, as in the released code.

    Source: BMN code; golden bmn post_processing.
    """
    arrays = found.arrays
    length = int(arrays["length_t"])
    # Relative to the video, as in the released code: on a grid many overlaps equal the gate.
    shares = Segments(
        start_s=arrays["start_t"] / length, end_s=arrays["end_t"] / length,
        label=np.zeros(len(arrays["score"]), np.int64), score=arrays["score"],
    )  # fmt: skip
    kept = gated_soft_nms(
        shares, hp.nms_alpha, hp.nms_low, hp.nms_high, duration_s=1.0, top=hp.most, leave=1
    )
    start_s, end_s = (
        np.clip(grid.seconds(edge * length), 0.0, duration_s) for edge in (kept.start_s, kept.end_s)
    )
    video = arrays["video"].astype(np.float64)
    classes = np.argsort(-video, kind="stable")[: hp.video_classes]
    score = (kept.score[:, None] * video[classes]).ravel()
    made = Segments(
        start_s=np.repeat(start_s, len(classes)),
        end_s=np.repeat(end_s, len(classes)),
        label=np.tile(classes, len(kept)),
        score=score,
    )
    order = np.argsort(-score, kind="stable")
    return made.take(order[made.end_s[order] > made.start_s[order]])
