"""Metrics of detections from points only: pure hits, point log-likelihood, lengths.

A point states the place of an action but not its length, so none of these is mAP. A detection
contains points on its edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import IntArray, Points, Segments
from ptal_ray.ops.metrics import Flat, average_precision, flatten, ranking, take

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
UNIFORM = 0.1  # fraction of the density that is uniform over the video and the classes
SHORTEST = 1e-3  # fraction of a video; minimal length of a detection


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Pure-hit average precision.

    Args:
        per_class: (C,) fractions; NaN for classes without a point.
        correct: by video, (N,) bool, which of its detections are correct, in their order.
    """

    per_class: Floats
    correct: dict[str, NDArray[np.bool_]]

    @property
    def mean(self) -> float:
        """Mean over the classes with points; 0 if there are none."""
        known = self.per_class[~np.isnan(self.per_class)]
        return float(known.mean()) if len(known) else 0.0


def pure_hits(
    points: Mapping[str, Points], predictions: Mapping[str, Segments], num_classes: int
) -> Hits:
    """Average precision; a detection is correct if it contains exactly one free point.

    Detections are taken best first; equal scores keep their order, as in `detection_map`. One that
    contains exactly one still unmatched point of its class is correct and matches that point. One
    that contains none, or two or more, is wrong and matches nothing.

    Args:
        points: of every evaluated video, by id.
        predictions: scored detections by video; of a video without points all are wrong.
        num_classes: C; labels are below it.

    Source: design of the search, "Only points, no segments".
    """
    videos = {name: row for row, name in enumerate({**points, **predictions})}
    real = flatten({id: as_segments(own) for id, own in points.items()}, videos, num_classes)
    real = take(real, np.lexsort((real.start, real.group)))
    given = flatten(predictions, videos, num_classes)
    order = ranking(given.score)
    found = take(given, order)
    first, last = _contained(real, found)
    hit = _matched(first, last, found.group, len(real.start))
    positives = np.bincount(real.label, minlength=num_classes)
    level = np.zeros(len(hit), np.int64)
    per_class = average_precision(found.label, level, hit, positives, 1)[:, 0]
    correct = np.zeros(len(order), np.bool_)
    correct[order[hit]] = True
    return Hits(per_class=per_class, correct=_by_video(correct, predictions))


def as_segments(points: Points) -> Segments:
    """Points as segments of length 0."""
    time_s = np.asarray(points.time_s, np.float64)
    return Segments(start_s=time_s, end_s=time_s, label=points.label, score=np.ones(len(points)))


def _by_video(values: NDArray[Any], segments: Mapping[str, Segments]) -> dict[str, NDArray[Any]]:
    """Values of the segments of all videos, concatenated, split by video."""
    ends = np.cumsum([len(own) for own in segments.values()])
    return {
        id: values[end - len(own) : end]
        for (id, own), end in zip(segments.items(), ends, strict=True)
    }


def _contained(real: Flat, found: Flat) -> tuple[Ints, Ints]:
    """The points of its class and video that each detection contains: real[first:last].

    `real` is sorted by group, then time. Times become ranks among all points, so that one search
    over (group, rank) is exact.
    """
    times = np.unique(real.start)
    size = len(times) + 1
    keys = real.group * size + np.searchsorted(times, real.start)
    begin = np.searchsorted(times, found.start, side="left")
    end = np.searchsorted(times, found.end, side="right")
    first = np.searchsorted(keys, found.group * size + begin)
    return first, np.searchsorted(keys, found.group * size + end)


def _matched(first: Ints, last: Ints, group: Ints, num_points: int) -> Ints:
    """Rows of the detections, best first, that are correct, ascending.

    Detections of different groups do not interact: each round decides the best open one of every
    group.
    """
    rows = np.flatnonzero(last > first)
    rows = rows[np.argsort(group[rows], kind="stable")]
    begins = np.flatnonzero(np.diff(group[rows], prepend=-1))
    sizes = np.diff(np.append(begins, len(rows)))
    free = np.ones(num_points, np.int64)
    hits = [np.zeros(0, np.int64)]
    for turn in range(int(sizes.max(initial=0))):
        now = rows[begins[sizes > turn] + turn]
        before = np.concatenate([[0], np.cumsum(free)])
        pure = now[before[last[now]] - before[first[now]] == 1]
        free[np.searchsorted(before, before[first[pure]] + 1) - 1] = 0
        hits.append(pure)
    return np.sort(np.concatenate(hits))


def point_log_likelihood(
    points: Mapping[str, Points],
    predictions: Mapping[str, Segments],
    num_classes: int,
    duration_s: Mapping[str, float],
) -> float:
    """Mean log-density of the points, in nats above that of a point anywhere in any class.

    The detections of a video define a density over time and class: each distributes its weight
    evenly over its length, and a fraction `UNIFORM` is uniform. The weight of a detection is 1 / (1
    + r), where r is its rank among the detections of all videos divided by the number of videos. As
    for mAP, only the order of the scores matters.

    Args:
        points: of every evaluated video, by id.
        predictions: scored detections, at least of these videos.
        num_classes: C.
        duration_s: of each video, seconds.

    Returns:
        The mean over the classes with points of the mean over their points; at least log(UNIFORM),
        and 0 without points.
    """
    weight = _rank_weights({id: predictions[id] for id in points})
    total, count = np.zeros(num_classes), np.zeros(num_classes)
    for id, own in points.items():
        length_s = duration_s[id]
        density = _density(own, predictions[id], weight[id], SHORTEST * length_s)
        gain = np.log(UNIFORM + (1 - UNIFORM) * density * length_s * num_classes)
        total += np.bincount(own.label, gain, minlength=num_classes)
        count += np.bincount(own.label, minlength=num_classes)
    known = count > 0
    return float((total[known] / count[known]).mean()) if known.any() else 0.0


def _rank_weights(predictions: Mapping[str, Segments]) -> dict[str, Floats]:
    """1 / (1 + rank / videos) of every detection, by video; equal scores have equal weights."""
    score = np.concatenate([np.zeros(0), *(own.score for own in predictions.values())])
    rank = np.searchsorted(np.sort(-score), -score)
    weight = 1 / (1 + rank / max(len(predictions), 1))
    return _by_video(weight, predictions)


def _density(points: Points, found: Segments, weight: Floats, shortest_s: float) -> Floats:
    """(P,) density of the detections of a video at each point and its class, per second."""
    if not len(found):
        return np.zeros(len(points))
    each = weight / weight.sum() / np.maximum(found.end_s - found.start_s, shortest_s)
    time_s = np.asarray(points.time_s)[:, None]
    inside = (found.start_s <= time_s) & (time_s <= found.end_s)
    inside &= found.label == np.asarray(points.label)[:, None]
    density: Floats = inside @ each
    return density


def mean_length_s(segments: Mapping[str, Segments], most: Sequence[int] | IntArray) -> float:
    """Mean length of the best segments of each class, in seconds.

    Args:
        segments: scored, by video.
        most: (C,) number of segments per class.

    Returns:
        Seconds; NaN without any.
    """
    found = Segments.concatenate([Segments.empty(), *segments.values()])
    found = found.take(np.argsort(-found.score, kind="stable"))
    length_s = found.end_s - found.start_s
    best = [length_s[found.label == label][:number] for label, number in enumerate(most)]
    every = np.concatenate([np.zeros(0), *best])
    return float(every.mean()) if len(every) else float("nan")
