"""The loops of suppression over the segments of one class, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.ops.jit import jit


@jit
def alive(start: Any, end: Any, length: Any, tiou: Any) -> NDArray[np.bool_]:
    """Which segments, given best first, are not suppressed by a better kept one."""
    stays = np.ones(len(start), np.bool_)
    for row in range(len(start)):
        if not stays[row]:
            continue
        for other in range(row + 1, len(start)):
            shared = min(end[row], end[other]) - max(start[row], start[other])
            union = length[row] + length[other] - shared
            # Without an overlap the quotient is not positive, whatever the sign of the rest; the
            # IoU is then 0, which only a threshold of 0 reaches.
            if stays[other] and (tiou <= 0 or (union > 0 and shared / union >= tiou)):
                stays[other] = False
    return stays


@jit
def decayed(
    start: Any,
    end: Any,
    length: Any,
    score: Any,
    kind: int,
    tiou: Any,
    sigma: Any,
    min_score: Any,
    most: int,
) -> Any:
    """Pick by current score; each pick decays the rest. Returns picks and their scores.

    All arithmetic is in the precision of the (N,) arrays. Picks have descending scores, so stopping
    after `most` does not change them; a segment below `min_score` never returns.

    Args:
        start, end, length, score: of N segments.
        kind: 0 "hard", 1 "linear", 2 "gaussian", see `decayed_picks`.
        tiou, sigma, min_score, most: see there.
    """
    row, present = np.arange(len(score)), score.copy()
    left, picked = len(score), 0
    one = sigma / sigma  # a literal would make single precision double
    while picked < most and picked < left:
        best = picked
        for at in range(picked + 1, left):
            if present[at] > present[best]:
                best = at
        row[picked], row[best] = row[best], row[picked]
        present[picked], present[best] = present[best], present[picked]
        mine = row[picked]
        picked += 1
        at = picked
        while at < left:
            other = row[at]
            shared = min(end[mine], end[other]) - max(start[mine], start[other])
            overlap = one - one
            if shared > 0:  # otherwise nothing changes; this avoids most of the exponentials
                overlap = shared / (length[mine] + length[other] - shared)
            if kind == 2:
                if overlap > 0:
                    present[at] *= np.exp(-(overlap * overlap) / sigma)
            elif overlap >= tiou:
                present[at] *= one - overlap if kind == 1 else one - one
            if present[at] < min_score:
                left -= 1
                row[at], present[at] = row[left], present[left]
            else:
                at += 1
    return row[:picked], present[:picked]


@jit
def lazily_decayed(
    start: Any,
    end: Any,
    score: Any,
    gate: Any,
    sigma: float,
    min_score: float,
    most: int,
    leave: int,
) -> Any:
    """Pick by current score; each pick decays the rest. Returns picks and their scores.

    Scores only decrease. So the search for the best one ends when the remaining initial scores,
    which descend, are not higher, and decays are applied to a segment only when the search reaches
    it.

    Args:
        start, end, score: (N,) of segments, by descending score; equal scores keep their order.
        gate: (N,) a picked segment decays those with an overlap above its gate.
        sigma: width of the Gaussian.
        min_score: stops below it.
        most: stops after this many.
        leave: stops when this many are left.
    """
    number = len(score)
    present, seen = score.copy(), np.zeros(number, np.int64)
    taken, picks = np.zeros(number, np.bool_), np.empty(number, np.int64)
    picked = first = 0
    while picked < most and picked < number - leave:
        while taken[first]:
            first += 1
        best = -1
        for at in range(first, number):
            if best >= 0 and score[at] <= present[best]:
                break
            if taken[at]:
                continue
            for turn in range(seen[at], picked):
                mine = picks[turn]
                shared = min(end[mine], end[at]) - max(start[mine], start[at])
                if shared > 0:
                    lengths = (end[mine] - start[mine]) + (end[at] - start[at])
                    overlap = shared / (lengths - shared)
                    if overlap > gate[mine]:
                        present[at] *= np.exp(-(overlap * overlap) / sigma)
            seen[at] = picked
            if best < 0 or present[at] > present[best]:
                best = at
        if present[best] < min_score:
            break
        taken[best] = True
        picks[picked] = best
        picked += 1
    return picks[:picked], present[picks[:picked]]


@jit
def votes(
    start: Any,
    end: Any,
    other_start: Any,
    other_end: Any,
    score: Any,
    edges: Any,
    tiou: Any,
) -> Any:
    """For each segment the mean edges of those that vote for it, and the sum of their weights.

    Overlaps are in the precision of the segments, sums in double precision.

    Args:
        start, end: (K,) of the segments that receive votes.
        other_start, other_end, score: (N,) of the voting segments, sorted by start.
        edges: (2, N) values to average.
        tiou: minimal overlap of a vote.

    Returns:
        (K, 2) means, 0 without votes, and (K,) sums of score times overlap.
    """
    moved, total = np.zeros((len(start), 2)), np.zeros(len(start))
    for row in range(len(start)):
        for at in range(len(score)):
            if other_start[at] >= end[row]:
                break
            shared = min(end[row], other_end[at]) - max(start[row], other_start[at])
            if shared <= 0:
                continue
            overlap = shared / (
                (end[row] - start[row]) + (other_end[at] - other_start[at]) - shared
            )
            if overlap >= tiou:
                weight = overlap * score[at]
                total[row] += weight
                moved[row, 0] += weight * edges[0, at]
                moved[row, 1] += weight * edges[1, at]
        if total[row] > 0:
            moved[row] /= total[row]
    return moved, total
