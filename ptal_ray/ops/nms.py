"""Non-maximum suppression of scored segments, per class.

There are three families, which must not be mixed (shared conventions, section 4): that of MIL
methods (`hard_nms`, optionally with one second added to lengths), ActionFormer's (`batched_nms`, in
single precision and with its own arithmetic) and BSN's gated Gaussian (`gated_soft_nms`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments
from ptal_ray.ops.nms_loops import alive, decayed, lazily_decayed, votes

Rows = NDArray[np.int64]
WIDENED = np.float32(1e-6)  # added to lengths by ActionFormer
DECAYS = {"hard": 0, "linear": 1, "gaussian": 2}


def hard_nms(segments: Segments, tiou: float, plus_one_second: bool = False) -> Segments:
    """Greedy suppression: the best segment removes segments of its class that overlap it too much.

    Args:
        segments: N segments.
        tiou: a segment is kept if its IoU with every better kept one is below this.
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
    order = order[segments.score[order] >= min_score]
    always = np.zeros(len(segments))
    kept, scores = [], []
    for rows in _by_class(segments, order):
        picked, score = _gaussian(segments, rows, always, sigma, min_score, len(rows), 0)
        kept.append(rows[picked])
        scores.append(score)
    return _rescored(segments, kept, scores)


def gated_soft_nms(
    segments: Segments,
    alpha: float,
    low: float,
    high: float,
    duration_s: float,
    top: int,
    leave: int = 0,
) -> Segments:
    """BSN's soft NMS: decay only beyond an IoU that grows with the picked segment's length.

    Args:
        segments: N segments.
        alpha: width of the Gaussian.
        low, high: decay where IoU > low + (high - low) * length / duration.
        duration_s: seconds of the video.
        top: at most this many segments per class (the references keep one more than they state).
        leave: segments of a class that are never picked; BMN's code leaves the last one.

    Source: BSN post-processing; BMN post-processing.
    """
    order = np.argsort(-segments.score, kind="stable")
    gate = low + (high - low) * (segments.end_s - segments.start_s) / duration_s
    kept, scores = [], []
    for rows in _by_class(segments, order):
        picked, score = _gaussian(segments, rows, gate, alpha, -np.inf, top, leave)
        kept.append(rows[picked])
        scores.append(score)
    return _rescored(segments, kept, scores)


def batched_nms(
    segments: Segments,
    *,
    tiou: float,
    sigma: float,
    min_score: float,
    most: int,
    soft: bool,
    multiclass: bool,
    voting_tiou: float,
) -> Segments:
    """ActionFormer's suppression: Gaussian or hard, by class or over all of them, with voting.

    Each class stops after `most` segments; then the best of all classes are kept.

    Args:
        segments: N segments, in seconds.
        tiou: hard: segments with at least this IoU with a better one are removed. No effect if
            `soft`.
        sigma: soft: width of the Gaussian.
        min_score: soft: segments below it are dropped (except the best of all, as in the released
            code); hard: segments not above it are dropped, 0 keeps all.
        most: number of kept segments.
        soft: whether scores decay; else segments are removed.
        multiclass: whether to suppress class by class, without voting; else all segments together.
        voting_tiou: without `multiclass`, a kept segment becomes the mean of all given ones with at
            least this IoU, weighted by score times IoU; 0 for no voting.

    Returns:
        The kept segments by score descending.

    Source: ActionFormer; golden actionformer batched_nms.
    """
    every = np.arange(len(segments))
    groups = _by_class(segments, every) if multiclass else [every]
    kept, scores = [], []
    for rows in groups:
        if soft:
            picked, score = decayed_picks(
                segments.take(rows), "gaussian", tiou, sigma, min_score, most
            )
        else:
            picked = greedy_picks(segments.take(rows), tiou, min_score)[:most]
            score = segments.score[rows[picked]]
        kept.append(rows[picked])
        scores.append(score)
    if not kept:
        return Segments.empty()
    made = segments.take(np.concatenate(kept))
    if voting_tiou > 0 and not multiclass:
        made = voted(made, segments, voting_tiou)
    score = np.concatenate(scores).astype(np.float64)
    made = Segments(start_s=made.start_s, end_s=made.end_s, label=made.label, score=score)
    return made.take(np.argsort(-score, kind="stable")[:most])


def decayed_picks(
    segments: Segments, kind: str, tiou: float, sigma: float, min_score: float, most: int
) -> tuple[Rows, NDArray[np.float32]]:
    """ActionFormer's soft suppression of segments of any class, in single precision.

    Args:
        segments: N segments.
        kind: "gaussian", exp(-IoU^2 / sigma) for all; "linear", 1 - IoU from `tiou` on; "hard", 0
            from `tiou` on.
        min_score: a segment is dropped when its score falls below.
        most: stops after this many.

    Returns:
        Rows of the picked segments, and their descending scores. Equal scores have the order of the
        released code, which results from its swaps.
    """
    start, end, score = (
        a.astype(np.float32) for a in (segments.start_s, segments.end_s, segments.score)
    )
    single = np.float32
    made: tuple[Rows, NDArray[np.float32]] = decayed(
        start, end, end - start + WIDENED, score, DECAYS[kind], single(tiou), single(sigma),
        single(min_score), most,
    )  # fmt: skip
    return made


def greedy_picks(segments: Segments, tiou: float, min_score: float) -> Rows:
    """ActionFormer's hard suppression of segments of any class: rows kept, by score descending.

    Args:
        segments: N segments.
        tiou: segments with at least this IoU with a better one are removed.
        min_score: only segments above it count; 0 for all.
    """
    score = segments.score.astype(np.float32)
    rows = np.argsort(-score, kind="stable")
    if min_score > 0:
        rows = rows[score[rows] > np.float32(min_score)]
    start, end = segments.start_s[rows].astype(np.float32), segments.end_s[rows].astype(np.float32)
    return rows[alive(start, end, end - start + WIDENED, np.float32(tiou))]


def voted(kept: Segments, every: Segments, tiou: float) -> Segments:
    """`kept` with boundaries voted by all segments that overlap them.

    Args:
        kept: K segments.
        every: N segments with the scores from before suppression.
        tiou: a segment votes for those with at least this IoU, weighted by score times IoU.
    """
    every, single = every.take(np.argsort(every.start_s, kind="stable")), np.float32
    moved, total = votes(
        kept.start_s.astype(single), kept.end_s.astype(single), every.start_s.astype(single),
        every.end_s.astype(single), every.score.astype(single),
        np.stack([every.start_s, every.end_s]), single(tiou),
    )  # fmt: skip
    # Deviation: a segment without votes is unchanged, e.g. one of length 0; the code gives NaN.
    return Segments(
        start_s=np.where(total > 0, moved[:, 0], kept.start_s),
        end_s=np.where(total > 0, moved[:, 1], kept.end_s),
        label=kept.label,
        score=kept.score,
    )


def _by_class(segments: Segments, order: Rows) -> list[Rows]:
    """Rows of each class, in `order`."""
    if not len(order):
        return []
    label = segments.label[order]
    grouped = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[grouped])) + 1
    return np.split(order[grouped], cuts)


def _greedy(segments: Segments, rows: Rows, tiou: float, plus_one_second: bool) -> Rows:
    start = segments.start_s[rows].astype(np.float64)
    end = segments.end_s[rows].astype(np.float64) + float(plus_one_second)
    return rows[alive(start, end, end - start, tiou)]


def _gaussian(
    segments: Segments,
    rows: Rows,
    gate: NDArray[Any],
    sigma: float,
    min_score: float,
    most: int,
    leave: int,
) -> tuple[Rows, NDArray[np.float64]]:
    """See `lazily_decayed`; for `rows`, in double precision."""
    start, end, score, gate = (
        a[rows].astype(np.float64) for a in (segments.start_s, segments.end_s, segments.score, gate)
    )
    made: tuple[Rows, NDArray[np.float64]] = lazily_decayed(
        start, end, score, gate, sigma, min_score, most, leave
    )
    return made


def _rescored(segments: Segments, kept: list[Rows], scores: list[NDArray[np.float64]]) -> Segments:
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


def _best_first(segments: Segments, kept: list[Rows]) -> Segments:
    if not kept:
        return Segments.empty()
    rows = np.sort(np.concatenate(kept))
    return segments.take(rows[np.argsort(-segments.score[rows], kind="stable")])
