"""The best sequence of action and background runs that agrees with seeds, for one class.

States alternate between background and action, each with a window of seeds it must cover. A
sequence is scored by the mean outer-inner contrast of all its runs. Each term depends on the two
ends of its run only, so dynamic programming over neighbouring boundaries finds the true optimum;
the beam of the released LACP code does not always.
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


@dataclass(frozen=True, kw_only=True)
class Windows:
    """K states and the seeds each must cover; state k + 1 starts in (last[k], first[k + 1]].

    Args:
        first, last: (K,) first and last seed of each state, both included. The first state starts
            at 0 and the last ends with the video, whatever they say.
        action_first: whether state 0 is an action.
    """

    first: Ints
    last: Ints
    action_first: bool


@jit
def contrast(sums: Floats, start: int, end: int, delta: float, action: bool) -> float:
    """Outer-inner contrast of the run start..end: mean inside minus mean of its surroundings.

    The surroundings reach floor(start - delta * len) and floor(end + delta * len), inside the
    video; the mean of empty surroundings is 0. For background the scores are 1 - score.

    Args:
        sums: (T + 1,) sums[t] is the sum of the first t scores.
        start, end: the run, both included.
        delta: width of the surroundings / length of the run.
        action: False takes 1 - score.

    Source: LACP code; golden lacp_oic.
    """
    length = len(sums) - 1
    size = end - start + 1
    left = max(0, int(start - delta * size))
    right = min(length - 1, int(end + delta * size))
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


def class_windows(
    background: NDArray[np.bool_], first: Ints, last: Ints, own: NDArray[np.bool_]
) -> Windows:
    """The states that seeds imply for one class.

    Seeds of other classes are background, except where they are seeds of this one too.

    Args:
        background: (T,) mined background.
        first, last: (P,) how far the label of each point reaches, both included, -1 pads.
        own: (P,) points of the class, at least one.
    """
    action, other = np.zeros_like(background), background.copy()
    for low, high, mine in zip(first, last, own, strict=True):
        if low >= 0:
            (action if mine else other)[low : high + 1] = True
    begins, ends, action_first = _collapse(action, other & ~action)
    return Windows(first=begins, last=ends, action_first=bool(action_first))


def action_runs(starts: Ints, states: Windows, length: int) -> tuple[Ints, Ints]:
    """First and last snippet of the action runs among the runs that start at `starts`."""
    ends = np.append(starts[1:], length) - 1
    chosen = slice(0 if states.action_first else 1, None, 2)
    return starts[chosen], ends[chosen]


@jit
def _exact(sums: Floats, first: Ints, last: Ints, action_first: bool, delta: float) -> Ints:
    number, length = len(first), len(sums) - 1
    start = np.zeros(number, np.int64)
    if number == 1:
        return start
    offset = np.zeros(number + 1, np.int64)
    for k in range(1, number):
        offset[k + 1] = offset[k] + first[k] - last[k - 1]
    value = np.empty(offset[number])
    parent = np.zeros(offset[number], np.int64)
    for k in range(1, number):
        action = action_first == ((k - 1) % 2 == 0)
        for y in range(last[k - 1] + 1, first[k] + 1):
            at = offset[k] + y - last[k - 1] - 1
            if k == 1:
                value[at] = contrast(sums, 0, y - 1, delta, action)
                continue
            best = -np.inf
            for x in range(last[k - 2] + 1, first[k - 1] + 1):
                total = value[offset[k - 1] + x - last[k - 2] - 1]
                total += contrast(sums, x, y - 1, delta, action)
                if total >= best:
                    best = total
                    parent[at] = x
            value[at] = best
    action = action_first == ((number - 1) % 2 == 0)
    best = -np.inf
    for x in range(last[number - 2] + 1, first[number - 1] + 1):
        total = value[offset[number - 1] + x - last[number - 2] - 1]
        total += contrast(sums, x, length - 1, delta, action)
        if total >= best:
            best = total
            start[number - 1] = x
    for k in range(number - 1, 1, -1):
        start[k - 1] = parent[offset[k] + start[k] - last[k - 1] - 1]
    return start


def exact_search(sums: Floats, states: Windows, delta: float) -> Ints:
    """Start of each state in the best sequence, (K,) ascending; of equal ones a late one.

    Operations: one contrast for each pair of neighbouring boundaries that the windows allow.

    Args:
        sums: (T + 1,) sums of the class's scores, see `contrast`.
        states: at least one.
        delta: width of the surroundings.
    """
    return _exact(sums, states.first, states.last, states.action_first, delta)


def sequence_score(sums: Floats, starts: Ints, action_first: bool, delta: float) -> float:
    """Mean contrast over the runs that start at `starts` (K,), the last to the video's end."""
    ends = np.append(starts[1:], len(sums) - 1) - 1
    total = 0.0
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        total += contrast(sums, start, end, delta, action_first == (k % 2 == 0))
    return total / len(starts)


def beam_search(sums: Floats, states: Windows, delta: float, *, budget: int, prune: float) -> Ints:
    """What the released LACP code finds: a beam over the mean contrast of the closed runs.

    Args:
        sums, states, delta: as in `exact_search`.
        budget: hypotheses kept after every snippet; all that tie with the last stay.
        prune: hypotheses that score less are dropped, but never all of them.

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
                closed = total + contrast(sums, starts[-1], t - 1, delta, action)
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
