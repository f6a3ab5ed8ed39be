"""Pseudo-labels: the base model's proposals, cut and chosen by the annotated points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.types import Points, Segments
from ptal_ray.methods.method import Batch, Known, Pseudo
from ptal_ray.methods.potloc.base import decode
from ptal_ray.methods.potloc.params import PotlocTrain, base_decode

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A segment for each point, or several.

    Args:
        point: (K,) row of the point.
        start_s, end_s, score: (K,).
    """

    point: Ints
    start_s: Floats
    end_s: Floats
    score: Floats

    def take(self, index: Ints | NDArray[np.bool_]) -> Labels:
        """The labels at `index`."""
        return Labels(
            point=self.point[index], start_s=self.start_s[index], end_s=self.end_s[index],
            score=self.score[index],
        )  # fmt: skip


def pseudo_labels(
    points: list[Points], proposals: list[Segments], num_classes: int, split: str
) -> Labels:
    """One segment for each point, from the proposals of its class and video.

    A proposal that covers one point is a candidate. A proposal that covers several is cut halfway
    between neighbours (`midpoint`) or dropped (`paper`). A point without a candidate gets a segment
    around it with the mean length d of the candidates of its class; `paper` instead takes the best
    proposal over the point, clipped to this segment. The label of a point is its best candidate,
    the first of equals.

    Args:
        points: of each of V videos, by time.
        proposals: of each video.
        num_classes: C.
        split: "midpoint" or "paper".

    Returns:
        (P,) labels, those of the first video first.

    Source: POTLoc Algorithm 1; midpoint: code, golden potloc_pl.
    """
    time_s, key, order, bounds = _sorted_points(points, num_classes)
    offered = Segments.concatenate(proposals) if proposals else Segments.empty()
    group = np.repeat(np.arange(len(proposals)), [len(p) for p in proposals]) * num_classes
    group = group + offered.label
    first, last = _covered(time_s, bounds, group, offered.start_s, offered.end_s)
    kept = _candidates(time_s, first, last, offered, split)
    d = _mean_lengths(kept, key, num_classes)[key % num_classes]
    point, row = _pairs(time_s, bounds, key, kept)
    missing = np.setdiff1d(order, point)
    low, high = np.maximum(0.0, time_s - d / 2), time_s + d / 2
    own = Labels(
        point=missing, start_s=low[missing], end_s=high[missing], score=np.zeros(len(missing))
    )
    every = _joined(kept, own)
    if split == "paper":  # the segment of a point without candidates belongs only to it
        every = _joined(kept, _clipped(own, time_s, d, first, last, offered))
        point = np.concatenate([point, missing])
        row = np.concatenate([row, len(kept.point) + np.arange(len(missing))])
    else:
        point, row = _pairs(time_s, bounds, key, every)
    chosen = every.take(row[_first_best(point, every.score[row], row)][order])
    return replace(chosen, point=order)


def _sorted_points(points: list[Points], num_classes: int) -> tuple[Floats, Ints, Ints, Ints]:
    """Points by group (video, class) and time.

    Returns:
        (P,) times, (P,) groups, (P,) row of each annotated point in sorted order, and
        (V C + 1,) first row of each group.
    """
    time_s = np.concatenate([np.zeros(0), *(p.time_s for p in points)])
    label = np.concatenate([np.zeros(0, np.int64), *(p.label for p in points)])
    video = np.repeat(np.arange(len(points)), [len(p) for p in points])
    group = video * num_classes + label
    ascending = np.lexsort((time_s, group))
    order = np.empty(len(ascending), np.int64)
    order[ascending] = np.arange(len(ascending))
    group = group[ascending]
    bounds = np.searchsorted(group, np.arange(len(points) * num_classes + 1))
    return time_s[ascending], group, order, bounds


def _covered(
    time_s: Floats, bounds: Ints, group: Ints, start_s: Floats, end_s: Floats
) -> tuple[Ints, Ints]:
    """By segment, first row, and first row after, of the points with start <= time <= end."""
    size = len(bounds) - 1
    owner = np.repeat(np.arange(size), np.diff(bounds))
    moments = np.unique(np.concatenate([time_s, start_s, end_s]))
    base = len(moments)  # ranks combine group and time into one exact integer
    points = owner * base + np.searchsorted(moments, time_s)
    first = np.searchsorted(points, group * base + np.searchsorted(moments, start_s), "left")
    last = np.searchsorted(points, group * base + np.searchsorted(moments, end_s), "right")
    return first, last


def _candidates(time_s: Floats, first: Ints, last: Ints, offered: Segments, split: str) -> Labels:
    """The proposals that cover one point; with cutting also the parts of those on several."""
    number = last - first
    chosen = np.flatnonzero(number >= 1 if split == "midpoint" else number == 1)
    point, row = _expanded(first[chosen], last[chosen])
    part = chosen[row]
    before, after = np.maximum(point - 1, 0), np.minimum(point + 1, len(time_s) - 1)
    middle_before = (time_s[point] + time_s[before]) / 2
    middle_after = (time_s[point] + time_s[after]) / 2
    return Labels(
        point=point,
        start_s=np.where(point == first[part], offered.start_s[part], middle_before),
        end_s=np.where(point == last[part] - 1, offered.end_s[part], middle_after),
        score=offered.score[part],
    )


def _mean_lengths(kept: Labels, key: Ints, num_classes: int) -> Floats:
    """(C,) d: mean length of a class's candidates, of all for a class without any.

    Deviation: the released code fails for a class without candidates; without any candidate, 1 s.
    """
    length, label = kept.end_s - kept.start_s, key[kept.point] % num_classes
    overall = length.mean() if len(length) else 1.0
    return np.array(
        [length[label == c].mean() if (label == c).any() else overall for c in range(num_classes)]
    )


def _pairs(time_s: Floats, bounds: Ints, key: Ints, kept: Labels) -> tuple[Ints, Ints]:
    """(point, candidate) rows of all points in candidates."""
    first, last = _covered(time_s, bounds, key[kept.point], kept.start_s, kept.end_s)
    return _expanded(first, last)


def _expanded(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """(point, segment) rows of all pairs, from the ranges of points of each segment."""
    number = last - first
    row = np.repeat(np.arange(len(number)), number)
    point = first[row] + np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
    return point, row


def _clipped(
    own: Labels, time_s: Floats, d: Floats, first: Ints, last: Ints, offered: Segments
) -> Labels:
    """For each point without candidates the best proposal on it within d / 2, else its segment."""
    if not len(offered):
        return own
    point, row = _expanded(first, last)
    best = _first_best(point, offered.score[row], row)
    over = np.full(len(time_s), -1)
    over[point[best]] = row[best]
    chosen = over[own.point]
    has, half = chosen >= 0, d[own.point] / 2
    start = np.maximum(offered.start_s[chosen], time_s[own.point] - half)
    end = np.minimum(offered.end_s[chosen], time_s[own.point] + half)
    return Labels(
        point=own.point,
        start_s=np.where(has, start, own.start_s),
        end_s=np.where(has, end, own.end_s),
        score=np.where(has, offered.score[chosen], 0.0),
    )


def _joined(one: Labels, other: Labels) -> Labels:
    return Labels(
        point=np.concatenate([one.point, other.point]),
        start_s=np.concatenate([one.start_s, other.start_s]),
        end_s=np.concatenate([one.end_s, other.end_s]),
        score=np.concatenate([one.score, other.score]),
    )


def _first_best(point: Ints, score: Floats, row: Ints) -> Ints:
    """For each point that occurs, the position of its highest score; of equal ones the smallest
    row."""
    order = np.lexsort((row, -score, point))
    return order[np.flatnonzero(np.diff(point[order], prepend=-1))]


def split_labels(known: Known, hp: PotlocTrain) -> Pseudo:
    """The target segments of the main model, by video.

    Args:
        known: the training videos with the base model's scores; annotations are read only if `hp`
            selects them.
        hp: determines the kind of targets.

    Returns:
        "point_t", "start_t", "end_t" (V, N) float64, edges on the grid of snippets, not rounded;
        "label" (V, N) int64, -1 pads.
    """
    split = known.split
    if hp.supervision == "annotations":
        annotated = known.truth()
        return _padded([_around_centres(annotated[i]) for i in split.ids], split)
    store = split.store
    assert known.stage is not None
    proposals = [
        decode(found, grid, store.duration_s(found.id), base_decode(hp))
        for found, grid in zip(known.stage.scores, split.grids, strict=True)
    ]
    if hp.supervision == "proposals":
        return _padded([_around_centres(p) for p in proposals], split)
    points = [store.points(i) for i in split.ids]
    made = pseudo_labels(points, proposals, store.info.num_classes, hp.pseudo_split)
    ends = np.cumsum([len(p) for p in points])[:-1]
    columns = (np.split(v, ends) for v in (made.start_s, made.end_s, made.score))
    taught = [
        (p.time_s, Segments(start_s=start, end_s=end, label=p.label, score=score))
        for p, start, end, score in zip(points, *columns, strict=True)
    ]
    return _padded(taught, split)


def _around_centres(segments: Segments) -> tuple[Floats, Segments]:
    return (segments.start_s + segments.end_s) / 2, segments


def _padded(taught: Sequence[tuple[Floats, Segments]], split: PackedSplit) -> Pseudo:
    most = max(1, *(len(p) for _, p in taught))
    shape = (len(taught), most)
    edges = {name: np.full(shape, -1.0) for name in ("point_t", "start_t", "end_t")}
    label = np.full(shape, -1, np.int64)
    for row, ((time_s, segments), grid) in enumerate(zip(taught, split.grids, strict=True)):
        columns = {"point_t": time_s, "start_t": segments.start_s, "end_t": segments.end_s}
        for name, column in columns.items():
            edges[name][row, : len(column)] = grid.snippets(column)
        label[row, : len(segments)] = segments.label
    return {name: torch.from_numpy(v) for name, v in (edges | {"label": label}).items()}


def label_segments(pseudo: Pseudo, batch: Batch) -> list[NDArray[np.float64]]:
    """(K, 3) first snippet, last snippet and class of each video's labels, with fractions."""
    columns = [pseudo["start_t"], pseudo["end_t"] - 1, pseudo["label"].double()]
    rows = torch.stack(columns, dim=2).cpu().numpy()
    return [row[row[:, 2] >= 0] for row in rows]
