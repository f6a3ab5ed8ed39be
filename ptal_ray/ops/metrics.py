"""Detection mAP as defined by the ActivityNet evaluation, vectorised.

Matching is greedy: in order of score, each prediction takes the free ground truth that it overlaps
most. All ground truths thus prefer the prediction with the higher score, so the greedy result is
the only stable matching, and deferred acceptance (Gale and Shapley) finds it in a few parallel
rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments
from ptal_ray.ops.segments import official_tiou

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Overlap = Callable[[Any, Any, Any, Any], Floats]
_PAIRS = 4_000_000  # prediction-truth pairs in memory at a time


@dataclass(frozen=True, kw_only=True)
class MapResult:
    """Average precision at K thresholds.

    Args:
        tiou: the K thresholds.
        per_class: (C, K); NaN for classes without ground truth.
        per_tiou: (K,) mean over the classes with ground truth.
    """

    tiou: tuple[float, ...]
    per_class: Floats
    per_tiou: Floats

    @property
    def average(self) -> float:
        """Mean over all thresholds."""
        return float(self.per_tiou.mean())


@dataclass(frozen=True)
class Flat:
    """Segments of all videos end to end; `group` is video * C + label."""

    start: Floats
    end: Floats
    score: Floats
    label: Ints
    group: Ints


def detection_map(
    truth: Mapping[str, Segments],
    predictions: Mapping[str, Segments],
    num_classes: int,
    tiou: Sequence[float],
    overlap: Overlap = official_tiou,
    normalized: bool = False,
) -> MapResult:
    """Mean average precision over classes at each threshold.

    Predictions in videos without ground truth are false positives. Equal scores keep their input
    order (videos in the order of the mapping); NaN scores rank first, as in the official code. An
    overlap equal to a threshold matches, and so does a NaN overlap: a prediction takes ground
    truths with NaN overlaps before all others. Of equal overlaps the later one in the input is
    taken first; of NaN overlaps the one that numpy's argsort puts last.

    Args:
        truth: instances by video, for every video of the evaluated subset.
        predictions: scored detections by video.
        num_classes: C; labels are below it.
        tiou: K thresholds.
        overlap: of predictions (start, end) with instances (start, end), element by element.
        normalized: whether to compute mAP_N, which uses the precision that each class would have
            with the average number of instances per class.

    Source: shared conventions section 3; ActivityNet evaluation code; Alwassel et al. 2018
        (DETAD), section 3.3, for mAP_N.
    """
    _, real, found = _ordered(truth, predictions, num_classes)
    thresholds = np.asarray(tiou, np.float64)
    level, hit = _match(real, found, thresholds, overlap)
    positives = np.bincount(real.label, minlength=num_classes)
    has_truth = positives > 0
    common = float(positives[has_truth].mean()) if normalized and has_truth.any() else None
    per_class = average_precision(found.label, level, hit, positives, len(thresholds), common)
    per_tiou = per_class[has_truth].mean(axis=0) if has_truth.any() else np.zeros(len(thresholds))
    return MapResult(tiou=tuple(tiou), per_class=per_class, per_tiou=per_tiou)


def _ordered(
    truth: Mapping[str, Segments], predictions: Mapping[str, Segments], num_classes: int
) -> tuple[dict[str, int], Flat, Flat]:
    """Rows of videos, instances by group, and predictions with the best score first."""
    videos = {name: row for row, name in enumerate(truth)}
    for name in predictions:
        videos.setdefault(name, len(videos))
    real = flatten(truth, videos, num_classes)
    found = flatten(predictions, videos, num_classes)
    real = take(real, np.argsort(real.group, kind="stable"))
    return videos, real, take(found, ranking(found.score))


def flatten(segments: Mapping[str, Segments], videos: Mapping[str, int], classes: int) -> Flat:
    """All instances in one table.

    Args:
        segments: of each video, by id.
        videos: row of each id.
        classes: number of classes; a group is a class of a video, `row * classes + label`.
    """
    parts = list(segments.values())
    counts = [len(p) for p in parts]
    video = np.repeat(np.array([videos[v] for v in segments], np.int64), counts)

    def joined(name: str, dtype: Any) -> Any:
        """One field of all parts, concatenated."""
        columns = [getattr(p, name) for p in parts]
        return np.concatenate(columns).astype(dtype, copy=False) if columns else np.zeros(0, dtype)

    label = joined("label", np.int64)
    return Flat(
        start=joined("start_s", np.float64),
        end=joined("end_s", np.float64),
        score=joined("score", np.float64),
        label=label,
        group=video * classes + label,
    )


def ranking(score: Floats) -> Ints:
    """Best first: NaN, then descending; equal scores in their order."""
    return np.roll(np.argsort(-score, kind="stable"), int(np.isnan(score).sum()))


def take(flat: Flat, index: Ints) -> Flat:
    """The rows `index`, in that order."""
    return Flat(*(getattr(flat, name)[index] for name in Flat.__dataclass_fields__))


def _match(real: Flat, found: Flat, thresholds: Floats, overlap: Overlap) -> tuple[Ints, Ints]:
    """True positives as (threshold index, index of the prediction); predictions by rank."""
    groups, first, size = np.unique(real.group, return_index=True, return_counts=True)
    if not len(groups) or not len(found.group):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.searchsorted(groups, found.group).clip(max=len(groups) - 1)
    relevant = np.flatnonzero(groups[at] == found.group)
    relevant = relevant[np.argsort(at[relevant], kind="stable")]
    levels, hits = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rows in _chunks(relevant, at[relevant], size[at[relevant]]):
        level, hit = _match_rows(
            real, found, rows, first[at[rows]], size[at[rows]], thresholds, overlap
        )
        levels.append(level)
        hits.append(hit)
    return np.concatenate(levels), np.concatenate(hits)


def _chunks(rows: Ints, group: Ints, candidates: Ints) -> list[Ints]:
    """Split `rows`, sorted by group, between groups, after about _PAIRS candidates each.

    Matches in different groups do not interact, so a chunk can be matched alone.
    """
    if not len(rows):
        return []
    group_begins = np.flatnonzero(np.diff(group, prepend=-1))
    before = (np.cumsum(candidates) - candidates)[group_begins]
    cuts = group_begins[1:][np.diff(before // _PAIRS) > 0]
    return np.split(rows, cuts)


def _match_rows(
    real: Flat,
    found: Flat,
    rows: Ints,
    first: Ints,
    size: Ints,
    thresholds: Floats,
    tiou: Overlap,
) -> tuple[Ints, Ints]:
    """As `_match`, for some predictions whose candidates are real[first : first + size]."""
    prediction = np.repeat(rows, size)
    within = np.arange(len(prediction)) - np.repeat(np.cumsum(size) - size, size)
    truth = np.repeat(first, size) + within
    overlap = tiou(
        found.start[prediction], found.end[prediction], real.start[truth], real.end[truth]
    )
    tie = _tie_order(overlap, truth, size)
    overlap[np.isnan(overlap)] = np.inf
    near = overlap >= thresholds.min()
    prediction, truth, overlap, tie = prediction[near], truth[near], overlap[near], tie[near]
    order = np.lexsort((tie, -overlap, prediction))
    prediction, truth, overlap = prediction[order], truth[order], overlap[order]
    starts = np.flatnonzero(np.diff(prediction, prepend=-1))
    if not len(starts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    entity, level, end = [], [], []
    for index, threshold in enumerate(thresholds):
        count = np.add.reduceat((overlap >= threshold).astype(np.int64), starts)
        able = count > 0
        entity.append(starts[able])
        end.append((starts + count)[able])
        level.append(np.full(int(able.sum()), index))
    pointer, stop, levels = (np.concatenate(x) for x in (entity, end, level))
    seeker = prediction[pointer]
    held = _deferred_acceptance(truth, pointer, stop, seeker, levels, len(real.start))
    return levels[held], seeker[held]


def _tie_order(overlap: Floats, truth: Ints, size: Ints) -> Ints:
    """Preference of a prediction among equal overlaps; lower is preferred, the later ground truth.

    For several NaN overlaps the official code has the reversed order of numpy's argsort, which
    differs from this for more than 16 ground truths.

    Args:
        overlap, truth: the candidates of all predictions end to end.
        size: number of candidates of each prediction, at least one.
    """
    tie = -truth
    undefined = np.isnan(overlap)
    if not undefined.any():
        return tie
    end = np.cumsum(size)
    for row in np.flatnonzero(np.add.reduceat(undefined.astype(np.int64), end - size) > 1):
        part = slice(end[row] - size[row], end[row])
        tie[part][overlap[part].argsort()[::-1]] = np.arange(size[row])
    return tie


def _deferred_acceptance(
    truth: Ints, pointer: Ints, stop: Ints, rank: Ints, level: Ints, num_truths: int
) -> NDArray[np.bool_]:
    """Which seekers end up with a ground truth.

    Args:
        truth: (M,) ground truths, the preferences of all seekers, concatenated.
        pointer, stop: (E,) start and end of each seeker's preferences in `truth`.
        rank: (E,) lower is preferred by every ground truth.
        level: (E,) threshold index; seekers of different levels do not interact.
        num_truths: number of ground truths.
    """
    by_rank = np.argsort(-rank, kind="stable")  # the best is written last and remains
    pointer, stop, level = pointer[by_rank], stop[by_rank], level[by_rank]
    holder = np.full((int(level.max()) + 1) * num_truths, -1, np.int64)
    free, rejected = np.arange(len(pointer)), np.zeros(len(pointer), bool)
    while len(free):
        wish = level[free] * num_truths + truth[pointer[free]]
        before = holder[wish]
        better = free > before
        contest, challenger = wish[better], free[better]
        displaced = holder[contest]
        holder[contest] = challenger  # ascending, so that the best of several challengers remains
        rejected[:] = False
        rejected[free[~better]] = True
        rejected[challenger[holder[contest] != challenger]] = True
        rejected[displaced[displaced >= 0]] = True
        lost = np.flatnonzero(rejected)
        pointer[lost] += 1
        free = lost[pointer[lost] < stop[lost]]
    held = np.zeros(len(pointer), bool)
    held[holder[holder >= 0]] = True
    result = np.zeros(len(pointer), bool)
    result[by_rank] = held
    return result


def average_precision(
    label: Ints,
    level: Ints,
    hit: Ints,
    positives: Ints,
    num_levels: int,
    common: float | None = None,
) -> Floats:
    """(C, K) interpolated average precision; normalised to `common` instances of every class.

    Between two true positives precision only decreases, so its envelope is that of the precisions
    at the true positives, and each of these raises recall by 1 / positives.
    """
    by_class = np.argsort(label, kind="stable")
    first = np.cumsum(np.bincount(label, minlength=len(positives)))
    first = np.concatenate([[0], first[:-1]])
    place = np.empty(len(label), np.int64)
    place[by_class] = np.arange(len(label)) - first[label[by_class]] + 1
    average = np.where(positives > 0, 0.0, np.nan)[:, None].repeat(num_levels, axis=1)
    if not len(hit):
        return average
    cell = label[hit] * num_levels + level
    order = np.lexsort((hit, cell))
    cell, place = cell[order], place[hit[order]]
    begins = np.flatnonzero(np.diff(cell, prepend=-1))
    for begin, end in zip(begins, np.append(begins[1:], len(cell)), strict=True):
        c, k = divmod(int(cell[begin]), num_levels)
        true = np.arange(1, end - begin + 1)
        false = place[begin:end] - true
        right = true if common is None else true * common / positives[c]
        envelope = np.maximum.accumulate((right / (right + false))[::-1])
        average[c, k] = envelope.sum() / positives[c]
    return average


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which of N detections, best score first, are correct, for V videos and C classes.

    Args:
        videos: their ids, those of the ground truth first.
        video, label: (N,) index of the video and of the class.
        hit: (N, K) whether the detection matches an instance, at each threshold.
        positives: (V, C) instances.
    """

    videos: tuple[str, ...]
    video: Ints
    label: Ints
    hit: NDArray[np.bool_]
    positives: Ints


def match_detections(
    truth: Mapping[str, Segments],
    predictions: Mapping[str, Segments],
    num_classes: int,
    tiou: Sequence[float],
) -> Matches:
    """The matching that `detection_map` uses; arguments as there."""
    videos, real, found = _ordered(truth, predictions, num_classes)
    level, held = _match(real, found, np.asarray(tiou, np.float64), official_tiou)
    hit = np.zeros((len(found.start), len(tiou)), bool)
    hit[held, level] = True
    positives = np.zeros((len(videos), num_classes), np.int64)
    np.add.at(positives, (real.group // num_classes, real.label), 1)
    return Matches(
        videos=tuple(videos),
        video=found.group // num_classes,
        label=found.label,
        hit=hit,
        positives=positives,
    )
