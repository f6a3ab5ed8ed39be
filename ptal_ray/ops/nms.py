"""Non-maximum suppression of scored segments, per class.

Three families exist in the field and do not mix (shared conventions, section 4): the MIL one
(`hard_nms`, with the option of counting one second more), the Gaussian one, and BSN's gated
Gaussian (`gated_soft_nms`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import FloatArray, Segments
from ptal_ray.ops.jit import jit
from ptal_ray.ops.segments import tiou as tiou_matrix


def hard_nms(segments: Segments, tiou: float, plus_one_second: bool = False) -> Segments:
    """Greedy suppression: the best segment removes those of its class it overlaps too much.

    Args:
        segments: N segments.
        tiou: kept while IoU with every better kept one is below this.
        plus_one_second: lengths and overlaps are counted as end - start + 1, as the MIL family's
            released code does.

    Returns:
        The kept segments, by score descending; equal scores keep their order.
    """
    order = np.argsort(-segments.score, kind="stable")
    kept = [_greedy(segments, rows, tiou, plus_one_second) for rows in _by_class(segments, order)]
    return _best_first(segments, kept)


def soft_nms(segments: Segments, sigma: float, min_score: float = 1e-3) -> Segments:
    """Gaussian suppression: each picked segment scales the others by exp(-IoU^2 / sigma).

    Args:
        segments: N segments.
        sigma: width of the Gaussian; larger decays less.
        min_score: segments that fall below it are dropped.

    Returns:
        The picked segments with decayed scores, descending.

    Source: Bodla et al., 2017.
    """
    order = np.argsort(-segments.score, kind="stable")
    kept, scores = [], []
    for rows in _by_class(segments, order):
        decay = np.exp(-np.square(_overlap(segments, rows)) / sigma)
        picked, score = _decayed(segments.score[rows], decay, min_score)
        kept.append(rows[picked])
        scores.append(score)
    return _rescored(segments, kept, scores)


def gated_soft_nms(
    segments: Segments, alpha: float, low: float, high: float, duration_s: float, top: int
) -> Segments:
    """BSN's soft NMS: decay only beyond an IoU that grows with the picked segment's length.

    Args:
        segments: N segments.
        alpha: width of the Gaussian.
        low, high: decay where IoU > low + (high - low) * length / duration.
        duration_s: seconds of the video.
        top: at most this many segments a class (the reference keeps one more than it says).

    Source: BSN post-processing.
    """
    order = np.argsort(-segments.score, kind="stable")
    kept, scores = [], []
    for rows in _by_class(segments, order):
        overlap = _overlap(segments, rows)
        width = (segments.end_s[rows] - segments.start_s[rows]) / duration_s
        gate = overlap > (low + (high - low) * width)[:, None]
        decay = np.where(gate, np.exp(-np.square(overlap) / alpha), 1.0)
        picked, score = _decayed(segments.score[rows], decay, -np.inf)
        kept.append(rows[picked[:top]])
        scores.append(score[:top])
    return _rescored(segments, kept, scores)


def _by_class(segments: Segments, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of each class, in `order`."""
    if not len(order):
        return []
    label = segments.label[order]
    grouped = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[grouped])) + 1
    return np.split(order[grouped], cuts)


def _overlap(segments: Segments, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    start, end = segments.start_s[rows], segments.end_s[rows]
    return tiou_matrix(start, end, start, end)


def _greedy(
    segments: Segments, rows: NDArray[np.int64], tiou: float, plus_one_second: bool
) -> NDArray[np.int64]:
    start = segments.start_s[rows].astype(np.float64)
    end = segments.end_s[rows].astype(np.float64) + float(plus_one_second)
    return rows[_alive(start, end, tiou)]


@jit
def _alive(start: NDArray[np.float64], end: NDArray[np.float64], tiou: float) -> NDArray[np.bool_]:
    """Which of the segments, best first, no better one that stays suppresses."""
    alive = np.ones(len(start), np.bool_)
    for row in range(len(start)):
        if not alive[row]:
            continue
        for other in range(row + 1, len(start)):
            shared = min(end[row], end[other]) - max(start[row], start[other])
            union = (end[row] - start[row]) + (end[other] - start[other]) - shared
            # Where nothing is shared the quotient is not positive, whatever the sign of the rest.
            if alive[other] and union > 0 and shared / union >= tiou:
                alive[other] = False
    return alive


def _decayed(
    score: FloatArray, decay: NDArray[np.float64], min_score: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Picks by present score; each pick decays those left. Returns picks and their scores."""
    present = score.astype(np.float64).copy()
    left = np.ones(len(score), bool)
    picked, scores = [], []
    for _ in range(len(score)):
        best = int(np.where(left, present, -np.inf).argmax())
        if not left[best] or present[best] < min_score:
            break
        picked.append(best)
        scores.append(present[best])
        left[best] = False
        present[left] *= decay[best][left]
    return np.array(picked, np.int64), np.array(scores, np.float64)


def _rescored(
    segments: Segments, kept: list[NDArray[np.int64]], scores: list[NDArray[np.float64]]
) -> Segments:
    if not kept:
        return Segments.empty()
    rows, score = np.concatenate(kept), np.concatenate(scores)
    changed = Segments(
        start_s=segments.start_s[rows],
        end_s=segments.end_s[rows],
        label=segments.label[rows],
        score=score,
    )
    return changed.take(np.argsort(-score, kind="stable"))


def _best_first(segments: Segments, kept: list[NDArray[np.int64]]) -> Segments:
    if not kept:
        return Segments.empty()
    rows = np.sort(np.concatenate(kept))
    return segments.take(rows[np.argsort(-segments.score[rows], kind="stable")])
