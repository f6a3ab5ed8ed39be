"""The best sequence of action and background runs that is consistent with seeds, for one class.

States alternate between background and action, each with a window of seeds it must cover. A
sequence is scored by the mean outer-inner contrast of all its runs. Each term depends only on the
two ends of its run, so dynamic programming over neighbouring boundaries finds the optimum; the beam
search of the released LACP code does not always find it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.ops.jit import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CLIP_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class Windows:
    """K states and the seeds that each must cover; state k + 1 starts in (last[k], first[k + 1]].

    Args:
        first, last: (K,) first and last seed of each state, both included. The first state starts
            at 0 and the last ends with the video, regardless of these values.
        action_first: whether state 0 is an action.
    """

    first: Ints
    last: Ints
    action_first: bool


@jit
def contrast(
    sums: Floats, start: int, end: int, delta: float, action: bool, low: int, high: int
) -> float:
    """Outer-inner contrast of the run start..end: mean inside minus mean of its surroundings.

    The surroundings extend to floor(start - delta * len) and floor(end + delta * len), but not
    beyond low and high; the mean of empty surroundings is 0. For background the scores are 1 -
    score.

    Args:
        sums: (T + 1,) sums[t] is the sum of the first t scores.
        start, end: the run, both included.
        delta: width of the surroundings / length of the run.
        action: False takes 1 - score.
        low, high: first and last snippet of possible surroundings, 0 and T - 1 for the whole video.

    Source: LACP code; golden lacp_oic.
    """
    size = end - start + 1
    left = max(low, int(start - delta * size))
    right = min(high, int(end + delta * size))
    inner = float((sums[end + 1] - sums[start]) / size)
    around = (start - left) + (right - end)
    if around > 0:
        outer = (sums[start] - sums[left] + sums[right + 1] - sums[end + 1]) / around
        inner -= float(outer)
        return inner if action else -inner
    return inner if action else 1.0 - inner


@jit
def _collapse(action: NDArray[np.bool_], background: NDArray[np.bool_]) -> tuple[Ints, Ints, bool]:
    """First and last seed of each maximal stretch of seeds of one kind, and the first's kind."""
    first = np.empty(len(action), np.int64)
    last = np.empty(len(action), np.int64)
    number = 0
    kind = False
    action_first = False
    for t in range(len(action)):
        if not (action[t] or background[t]):
            continue
        if number == 0:
            action_first = action[t]
        if number == 0 or action[t] != kind:
            kind = action[t]
            first[number] = t
            number += 1
        last[number - 1] = t
    return first[:number].copy(), last[:number].copy(), action_first


def class_windows(action: NDArray[np.bool_], background: NDArray[np.bool_]) -> Windows:
    """The states for the seeds of one class.

    Args:
        action: (T,) seeds of the class, at least one.
        background: (T,) mined background and seeds of other classes; seeds of the class have
            priority.
    """
    begins, ends, action_first = _collapse(action, background & ~action)
    return Windows(first=begins, last=ends, action_first=bool(action_first))


def action_runs(starts: Ints, states: Windows, length: int) -> tuple[Ints, Ints]:
    """First and last snippet of the action runs among the runs that start at `starts`."""
    ends = np.append(starts[1:], length) - 1
    chosen = slice(0 if states.action_first else 1, None, 2)
    return starts[chosen], ends[chosen]


def splice(sums: Floats, states: Windows, delta: float, clipped: bool) -> tuple[Ints, Ints]:
    """First and last snippet of action segments: seeds stretched over quarters of their gaps.

    Each side extends by 0, 1/4, 1/2, 3/4 or all of the way to the middle of the gap to the next
    background seed, such that the segment has the highest contrast; a clipped one ends at the seeds
    of the neighbouring segments.

    Args:
        sums, states, delta: as in `exact_search`.
        clipped: whether surroundings end at the neighbouring segments.

    Source: FS-PTAL section 3.4, PROPOSED.
    """
    length, number = len(sums) - 1, len(states.first)
    begins, ends = [], []
    for k in range(0 if states.action_first else 1, number, 2):
        first, last = states.first[k], states.last[k]
        left = (first - 1 - states.last[k - 1]) // 2 if k > 0 else first
        right = (states.first[k + 1] - 1 - last) // 2 if k + 1 < number else length - 1 - last
        low = states.last[k - 2] + 1 if clipped and k > 1 else 0
        high = states.first[k + 2] - 1 if clipped and k + 2 < number else length - 1
        options = [
            (first - left * a // 4, last + right * b // 4) for a in range(5) for b in range(5)
        ]
        rated = [contrast(sums, s, e, delta, True, low, high) for s, e in options]
        start, end = options[int(np.argmax(rated))]
        begins.append(start)
        ends.append(end)
    return np.array(begins, np.int64), np.array(ends, np.int64)


@jit
def _exact(
    sums: Floats, first: Ints, last: Ints, action_first: bool, delta: float, low: Ints, high: Ints
) -> Ints:
    number, length = len(first), len(sums) - 1
    start = np.zeros(number, np.int64)
    offset = np.zeros(number + 1, np.int64)
    for k in range(1, number):
        offset[k + 1] = offset[k] + first[k] - last[k - 1]
    value = np.empty(offset[number])
    parent = np.zeros(offset[number], np.int64)
    for k in range(1, number + 1):  # run k - 1 ends before y; the last run ends with the video
        action = action_first == ((k - 1) % 2 == 0)
        from_y = last[k - 1] + 1 if k < number else length
        until_y = first[k] if k < number else length
        for y in range(from_y, until_y + 1):
            best, origin = -np.inf, 0
            from_x = last[k - 2] + 1 if k > 1 else 0
            until_x = first[k - 1] if k > 1 else 0
            for x in range(from_x, until_x + 1):
                total = value[offset[k - 1] + x - from_x] if k > 1 else 0.0
                total += contrast(sums, x, y - 1, delta, action, low[k - 1], high[k - 1])
                if total >= best:
                    best, origin = total, x
            if k < number:
                value[offset[k] + y - from_y] = best
                parent[offset[k] + y - from_y] = origin
            else:
                start[number - 1] = origin
    for k in range(number - 1, 1, -1):
        start[k - 1] = parent[offset[k] + start[k] - last[k - 1] - 1]
    return start


def exact_search(sums: Floats, states: Windows, delta: float) -> Ints:
    """Start of each state in the best sequence, (K,) ascending; of equal sequences a late one.

    Operations: one contrast for each pair of neighbouring boundaries that the windows allow.

    Args:
        sums: (T + 1,) sums of the class's scores, see `contrast`.
        states: at least one.
        delta: width of the surroundings.
    """
    low, high = _whole_video(sums, len(states.first))
    return _exact(sums, states.first, states.last, states.action_first, delta, low, high)


def clipped_search(sums: Floats, states: Windows, delta: float) -> Ints:
    """As `exact_search`, for surroundings that end at the neighbouring runs of the same kind.

    A contrast then depends on four boundaries. Deviation: instead of a search over triples of
    boundaries, the neighbours are fixed at their positions of the previous round, for at most
    CLIP_ROUNDS rounds, and the best sequence found is returned; `reports/` has its distance from
    the optimum.

    Source: FS-PTAL Eq. 8.
    """
    low, high = _whole_video(sums, len(states.first))
    best, best_score = None, -math.inf
    for _ in range(CLIP_ROUNDS):
        found = _exact(sums, states.first, states.last, states.action_first, delta, low, high)
        score = sequence_score(sums, found, states.action_first, delta, clipped=True)
        if best is None or score > best_score:
            best, best_score = found, score
        limits = _clip_limits(sums, found)
        if np.array_equal(limits, (low, high)):
            break
        low, high = limits
    assert best is not None
    return best


def _whole_video(sums: Floats, number: int) -> tuple[Ints, Ints]:
    return np.zeros(number, np.int64), np.full(number, len(sums) - 2, np.int64)


def _clip_limits(sums: Floats, starts: Ints) -> tuple[Ints, Ints]:
    """First and last snippet of possible surroundings of each run, excluding the run after next."""
    low, high = _whole_video(sums, len(starts))
    low[1:] = starts[:-1]
    high[:-2] = starts[2:] - 1
    return low, high


def sequence_score(
    sums: Floats, starts: Ints, action_first: bool, delta: float, clipped: bool = False
) -> float:
    """Mean contrast over the runs that start at `starts` (K,), the last to the video's end.

    With `clipped`, surroundings end at the neighbouring runs of the same kind.
    """
    ends = np.append(starts[1:], len(sums) - 1) - 1
    low, high = _clip_limits(sums, starts) if clipped else _whole_video(sums, len(starts))
    total = 0.0
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        action = action_first == (k % 2 == 0)
        total += contrast(sums, start, end, delta, action, low[k], high[k])
    return total / len(starts)


def beam_search(sums: Floats, states: Windows, delta: float, *, budget: int, prune: float) -> Ints:
    """The beam search of the released LACP code, over the mean contrast of closed runs.

    Args:
        sums, states, delta: as in `exact_search`.
        budget: hypotheses kept after every snippet, and all that tie with the last of them.
        prune: hypotheses with lower scores are dropped, but never all of them.

    Source: LACP code; golden lacp_search.
    """
    number, length = len(states.first), len(sums) - 1
    beam: list[tuple[tuple[int, ...], float]] = [((0,), 0.0)]  # starts, sum over closed runs
    for t in range(1, length):
        grown = []
        for starts, total in beam:
            k = len(starts) - 1
            if k == number - 1:
                grown.append((starts, total))
                continue
            if t < states.first[k + 1]:
                grown.append((starts, total))
            if t > states.last[k]:
                action = states.action_first == (k % 2 == 0)
                closed = total + contrast(sums, starts[-1], t - 1, delta, action, 0, length - 1)
                grown.append(((*starts, t), closed))
        beam = _keep(grown, budget, prune)
    scores = [sequence_score(sums, np.array(s), states.action_first, delta) for s, _ in beam]
    best = max(range(len(beam)), key=lambda i: (scores[i], i))
    return np.array(beam[best][0], np.int64)


def _keep(beam: list[tuple[tuple[int, ...], float]], budget: int, prune: float) -> list[Any]:
    means = [total / (len(s) - 1) if len(s) > 1 else math.inf for s, total in beam]
    floor = min(prune, max(means))
    cut = sorted(means, reverse=True)[budget - 1] if len(means) > budget else -math.inf
    return [h for h, mean in zip(beam, means, strict=True) if mean >= max(floor, cut)]
