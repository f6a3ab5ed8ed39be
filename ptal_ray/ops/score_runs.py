"""Detections from snippet scores: runs above thresholds, scored by outer-inner contrast."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.ops.jit import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rules(Protocol):
    """The decode parameters of `detections`."""

    @property
    def class_threshold(self) -> float:
        """Video score above which a class is kept."""

    @property
    def scale(self) -> int:
        """Samples per snippet."""

    @property
    def outer_ratio(self) -> float:
        """Width of a run's surroundings / its length."""

    @property
    def video_weight(self) -> float:
        """Weight of the video score in the score of a proposal."""


@jit
def upsample(value: Floats, scale: int) -> Floats:
    """(T,) -> (T * scale,): linear interpolation, continued after the last value.

    Args:
        value: (T,); a single value stays constant.
        scale: samples per snippet; sample i is at i / scale.

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
    active: Floats, threshold: float, above_zero: bool, start: Ints, end: Ints, first: int
) -> int:
    """Write the runs of samples at or above the threshold, from index `first` on."""
    length, begin, number = len(active), -1, first
    for t in range(length + 1):
        inside = t < length and active[t] >= threshold and (active[t] > 0 or not above_zero)
        if inside and begin < 0:
            begin = t
        if begin >= 0 and not inside:
            start[number], end[number] = begin, t - 1
            number += 1
            begin = -1
    if number == first + 1 and end[first] == 0:
        return first  # as in the released code: a class active only at sample 0 has no run
    return number


@jit
def _rate(
    sums: Floats, ratio: float, clipped: bool, start: Ints, end: Ints, contrast: Floats,
    first: int, number: int,
) -> None:  # fmt: skip
    """Mean inside minus mean of the surroundings, of the runs at first, ..., number - 1."""
    length = len(sums) - 1
    for k in range(first, number):
        low = end[k - 1] + 1 if clipped and k > first else 0
        high = start[k + 1] - 1 if clipped and k + 1 < number else length - 1
        size = end[k] - start[k] + 1
        left, right = max(low, int(start[k] - ratio * size)), min(high, int(end[k] + ratio * size))
        value = (sums[end[k] + 1] - sums[start[k]]) / size
        around = (start[k] - left) + (right - end[k])
        if around > 0:
            outer = sums[start[k]] - sums[left] + sums[right + 1] - sums[end[k] + 1]
            value -= outer / around
        contrast[k] = value


@jit
def score_runs(
    score: Floats, action: Floats, low: Floats, high: Floats, ratio: float, clipped: bool
) -> tuple[Ints, Ints, Floats]:
    """Proposals of one class: runs of its score, then runs of 1 - b, at all thresholds.

    For the contrast of runs of the score, values below the threshold are set to 0.

    Args:
        score: (N,) fused score of the class, upsampled.
        action: (N,) 1 - b, upsampled.
        low: thresholds of `score`; a run is above 0 too.
        high: thresholds of `action`.
        ratio: width of a proposal's surroundings / its length.
        clipped: whether surroundings end at the next run of the same threshold.

    Returns:
        First and last sample, both included, and the mean inside minus that of the surroundings.

    Source: LACP code; golden lacp_decode.
    """
    length = len(score)
    most = (len(low) + len(high)) * (length // 2 + 1)
    start, end = np.empty(most, np.int64), np.empty(most, np.int64)
    contrast, sums, number = np.empty(most), np.zeros(length + 1), 0
    for threshold in low:
        for t in range(length):
            sums[t + 1] = sums[t] + (score[t] if score[t] >= threshold else 0.0)
        first, number = number, _runs_above(score, threshold, True, start, end, number)
        _rate(sums, ratio, clipped, start, end, contrast, first, number)
    for t in range(length):
        sums[t + 1] = sums[t] + score[t]
    for threshold in high:
        first, number = number, _runs_above(action, threshold, False, start, end, number)
        _rate(sums, ratio, clipped, start, end, contrast, first, number)
    return start[:number].copy(), end[:number].copy(), contrast[:number].copy()


def score_arrays(fused: Tensor, video: Tensor, lengths: list[int]) -> list[dict[str, Any]]:
    """The scores of each video for decoding: "video" (C,), "score" (T, C) and "action" (T,), 1 - b.

    Args:
        fused: (B, T, C + 1) scores.
        video: (B, C) scores.
        lengths: snippets of each video.
    """
    on_host, videos = fused.cpu().numpy(), video.cpu().numpy()
    return [
        {
            "video": videos[row],
            "score": on_host[row, :length, :-1],
            "action": 1 - on_host[row, :length, -1],
        }
        for row, length in enumerate(lengths)
    ]


def detections(
    found: Scores,
    grid: Grid,
    duration_s: float,
    hp: Rules,
    low: Floats,
    high: Floats,
    clipped: bool = False,
) -> Segments:
    """Scored runs of the classes with a high enough video score, or else of the best class.

    A proposal's score is inner - outer + gamma * video score.

    Args:
        found: result of `score_arrays`.
        grid, duration_s: of the video; runs are clipped to it.
        hp: decode parameters.
        low, high: thresholds of fused scores and of 1 - b.
        clipped: see `score_runs`.

    Source: LACP code; golden lacp_decode.
    """
    video = found.arrays["video"]
    classes = np.flatnonzero(video >= hp.class_threshold)
    if not len(classes):
        classes = np.array([video.argmax()])
    action = upsample(found.arrays["action"].astype(np.float64), hp.scale)
    kept = []
    for label in classes:
        score = upsample(found.arrays["score"][:, label].astype(np.float64), hp.scale)
        start, end, contrast = score_runs(score, action, low, high, hp.outer_ratio, clipped)
        segments = Segments(
            start_s=np.maximum(grid.seconds(start / hp.scale), 0.0),
            end_s=np.minimum(grid.seconds((end + 1) / hp.scale), duration_s),
            label=np.full(len(start), label, np.int64),
            score=contrast + hp.video_weight * float(video[label]),
        )
        kept.append(segments.take(segments.end_s > segments.start_s))
    return Segments.concatenate(kept)
