"""Detections from snippet scores: runs above thresholds, scored by outer-inner contrast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptal_ray.ops.jit import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit
def upsample(value: Floats, scale: int) -> Floats:
    """(T,) -> (T * scale,): linear interpolation, continued behind the last value.

    Args:
        value: (T,); a single value stays constant.
        scale: samples a snippet; sample i lies at i / scale.

    Source: LACP code; golden lacp_decode/upsample.
    """
    length = len(value)
    made = np.empty(length * scale)
    for t in range(length):
        left = min(t, max(length - 2, 0))
        slope = value[left + 1] - value[left] if length > 1 else 0.0
        for k in range(scale):
            made[t * scale + k] = value[t] + slope * (k / scale)
    return made


@jit
def _runs_above(
    active: Floats, threshold: float, above_zero: bool, sums: Floats, ratio: float,
    start: Ints, end: Ints, contrast: Floats, number: int,
) -> int:  # fmt: skip
    """Appends the runs of samples at or above the threshold and their contrast."""
    length, begin, only_first = len(active), -1, number
    for t in range(length + 1):
        inside = t < length and active[t] >= threshold and (active[t] > 0 or not above_zero)
        if inside and begin < 0:
            begin = t
        if inside or begin < 0:
            continue
        last = t - 1
        size = last - begin + 1
        left, right = max(0, int(begin - ratio * size)), min(length - 1, int(last + ratio * size))
        value = (sums[last + 1] - sums[begin]) / size
        around = (begin - left) + (right - last)
        if around > 0:
            value -= (sums[begin] - sums[left] + sums[right + 1] - sums[last + 1]) / around
        start[number], end[number], contrast[number] = begin, last, value
        number += 1
        begin = -1
    if number == only_first + 1 and end[only_first] == 0:
        return only_first  # as the released code: a class active at sample 0 alone has no run
    return number


@jit
def score_runs(
    score: Floats, action: Floats, low: Floats, high: Floats, ratio: float
) -> tuple[Ints, Ints, Floats]:
    """Proposals of one class: runs of its score, then runs of 1 - b, at all thresholds.

    Runs of the score are rated on the score with what lies below the threshold set to 0.

    Args:
        score: (N,) fused score of the class, upsampled.
        action: (N,) 1 - b, upsampled.
        low: thresholds of `score`; a run is above 0 too.
        high: thresholds of `action`.
        ratio: width of a proposal's surroundings / its length.

    Returns:
        First and last sample, both included, and the mean inside minus that of the surroundings.

    Source: LACP code; golden lacp_decode.
    """
    length = len(score)
    most = (len(low) + len(high)) * (length // 2 + 1)
    start, end = np.empty(most, np.int64), np.empty(most, np.int64)
    contrast = np.empty(most)
    sums = np.zeros(length + 1)
    number = 0
    for threshold in low:
        for t in range(length):
            sums[t + 1] = sums[t] + (score[t] if score[t] >= threshold else 0.0)
        number = _runs_above(score, threshold, True, sums, ratio, start, end, contrast, number)
    for t in range(length):
        sums[t + 1] = sums[t] + score[t]
    for threshold in high:
        number = _runs_above(action, threshold, False, sums, ratio, start, end, contrast, number)
    return start[:number].copy(), end[:number].copy(), contrast[:number].copy()
