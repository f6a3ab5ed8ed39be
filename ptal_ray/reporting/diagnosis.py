"""What kinds of errors detections make, and which instances are missed.

Source: DETAD (Alwassel et al., 2018): its kinds of false positives and its characteristics of
instances, here with the share of instances that are found in place of normalised mAP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments
from ptal_ray.ops.segments import tiou as overlap

KINDS = (
    "true positive", "double detection", "wrong label", "localisation", "confusion", "background",
)  # fmt: skip
RIGHT, NEAR = 0.5, 0.1  # tIoU from which a detection is right, and from which it is near
GROUPS = 10  # the strongest detections of a class, in multiples of its instances
BINS = {
    "length": ("shortest fifth", "second", "third", "fourth", "longest fifth"),
    "coverage": ("smallest fifth", "second", "third", "fourth", "largest fifth"),
    "instances": ("1", "2 to 4", "5 to 8", "more than 8"),
}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The errors of one run.

    Args:
        shares: (GROUPS, 6) share of each of `KINDS` among the first, second, ... group of
            detections, each as many as a class has instances.
        found: share of instances that are found by the first group, by bin of `BINS`; None for an
            empty bin.
        counts: instances in each bin.
    """

    shares: NDArray[np.float64]
    found: dict[str, list[float | None]]
    counts: dict[str, list[int]]


def diagnose(
    truth: Mapping[str, Segments],
    found: Mapping[str, Segments],
    durations: Mapping[str, float],
    num_classes: int,
) -> Diagnosis:
    """Looks at every detection and every instance.

    Args:
        truth: instances by video.
        found: detections by video, the strongest first.
        durations: seconds by video.
        num_classes: labels are below it.
    """
    positives = np.bincount(
        np.concatenate([own.label for own in truth.values()]), minlength=num_classes
    )
    kinds, labels, scores, owners = _judged(truth, found)
    order = np.argsort(-scores, kind="stable")
    group = np.zeros(len(order), np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        group[mine] = np.arange(len(mine)) // max(1, int(positives[label]))
    counts = np.zeros((GROUPS, len(KINDS)))
    inside = group < GROUPS
    np.add.at(counts, (group[inside], kinds[inside]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    total = sum(len(own) for own in truth.values())
    held = np.zeros(total, bool)
    first = (group == 0) & (owners >= 0)
    held[owners[first]] = True
    by_bin = _characteristics(truth, durations)
    rates = {
        name: [float(held[bins == k].mean()) if (bins == k).any() else None for k in range(count)]
        for name, bins in by_bin.items()
        if (count := len(BINS[name]))
    }
    sizes = {n: [int((b == k).sum()) for k in range(len(BINS[n]))] for n, b in by_bin.items()}
    return Diagnosis(shares=shares, found=rates, counts=sizes)


def _judged(
    truth: Mapping[str, Segments], found: Mapping[str, Segments]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Kind, label, score and instance (-1 for none) of every detection in a video of `truth`."""
    kinds, labels, scores, owners, before = [], [], [], [], 0
    empty = np.zeros(0)
    for video, real in truth.items():
        own = found.get(video)
        if own is not None and len(own):
            overlaps = overlap(own.start_s, own.end_s, real.start_s, real.end_s)
            same = own.label[:, None] == real.label
            owner = _greedy(np.where(same, overlaps, 0.0))
            kinds.append(_kinds(overlaps, same, owner))
            owners.append(np.where(owner >= 0, owner + before, -1))
            labels.append(own.label)
            scores.append(own.score)
        before += len(real)
    columns = ([empty.astype(np.int64), *column] for column in (kinds, labels, scores, owners))
    kind, label, score, held = (np.concatenate(column) for column in columns)
    return kind, label.astype(np.int64), score.astype(float), held


def _greedy(overlaps: NDArray[np.float64]) -> NDArray[np.int64]:
    """The instance each detection takes, the strongest first: the free one it overlaps most."""
    owner = np.full(len(overlaps), -1, np.int64)
    left = overlaps.copy()
    for row in np.flatnonzero(overlaps.max(axis=1, initial=0) >= RIGHT):
        best = int(left[row].argmax())
        if left[row, best] >= RIGHT:
            owner[row] = best
            left[:, best] = 0
    return owner


def _kinds(
    overlaps: NDArray[np.float64], same: NDArray[np.bool_], owner: NDArray[np.int64]
) -> NDArray[np.int64]:
    own = np.where(same, overlaps, 0).max(axis=1, initial=0)
    other = np.where(same, 0, overlaps).max(axis=1, initial=0)
    conditions = [owner >= 0, own >= RIGHT, other >= RIGHT, own >= NEAR, other >= NEAR]
    return np.select(conditions, list(range(len(conditions))), len(KINDS) - 1).astype(np.int64)


def _characteristics(
    truth: Mapping[str, Segments], durations: Mapping[str, float]
) -> dict[str, NDArray[np.int64]]:
    """The bin of every instance, in the order of the videos."""
    lengths = np.concatenate([own.end_s - own.start_s for own in truth.values()])
    seconds = np.concatenate([np.full(len(own), durations[v]) for v, own in truth.items()])
    number = np.concatenate(
        [np.bincount(own.label)[own.label] if len(own) else own.label for own in truth.values()]
    )
    return {
        "length": _fifths(lengths),
        "coverage": _fifths(lengths / seconds),
        "instances": np.digitize(number, [2, 5, 9]),
    }


def _fifths(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.digitize(values, np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
