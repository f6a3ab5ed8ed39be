"""Whether point labels lie in the instances of their class, and what may be wrong if not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.importing.annotations import AnnotatedVideo
from ptal_ray.data.points import PointRow
from ptal_ray.data.rates import COMMON_FPS
from ptal_ray.data.types import Segments

LEAST = 0.9  # share of points that must lie in an instance of their class
_TOUCH_S = 1e-6
_MARGIN_S = 1.0  # between the stretches of a line
_FREE = 5  # points that an offset, chosen to fit them, must win

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A row of a points CSV, the training video that it is of, and frames per second."""

    row: PointRow
    video: str
    fps: float | None

    @property
    def time_s(self) -> float | None:
        """Seconds of the point; None where the rate is needed and unknown."""
        if self.fps is None and not self.row.in_seconds:
            return None
        return self.row.time_s(self.fps or 1.0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Another way to read the points.

    Args:
        name: what it is.
        cause: what is wrong if it is right, and the fix.
        inside: points in an instance of their class.
        depth: mean of 0 at the edges of instances to 1 in their middle; tells equal ones apart.
        free: points that it must win at least to be believed.
    """

    name: str
    cause: str
    inside: int
    depth: float
    free: int = 2


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How points and instances agree.

    Args:
        total: points of videos that have instances.
        inside: those in an instance of their class.
        outside: those before or behind their video.
        readings: other ways to read them, best first; none where all points are inside.
    """

    total: int
    inside: int
    outside: int
    readings: tuple[Reading, ...]

    @property
    def sound(self) -> bool:
        """Whether enough points lie in an instance of their class."""
        return self.inside >= LEAST * self.total

    @property
    def missed(self) -> int:
        """Points in no instance of their class."""
        return self.total - self.inside

    @property
    def cause(self) -> Reading | None:
        """The reading that is clearly better: it leaves a third of the misses at most."""
        best = next(iter(self.readings), None)
        if best is None or best.inside - self.inside < best.free:
            return None
        return best if 3 * (self.total - best.inside) <= self.missed else None

    def problem(self) -> str:
        """What is wrong, what else the points may be, and the fix."""
        cause, outside = self.cause, f", {self.outside} outside videos" if self.outside else ""
        likely = f"likely cause: {cause.cause}" if cause else "no other reading is clearly better"
        shares = ", ".join(f"{r.name} {self._percent(r.inside)}" for r in self.readings)
        return (
            f"{self.inside} of {self.total} points ({self._percent(self.inside)}) lie in an "
            f"instance of their class{outside}; at least {100 * LEAST:g} % is needed; {likely} "
            f"(other readings would give: {shares}); correct it, or pass --allow-points to go on"
        )

    def remark(self) -> str:
        """What the number of missed points counts."""
        text = f"points in no instance of their class ({self._percent(self.inside)} lie in one"
        if cause := self.cause:
            text += f", {self._percent(cause.inside)} would {cause.name}: {cause.cause}"
        return f"{text})"

    def _percent(self, inside: int) -> str:
        return f"{100 * inside / self.total:.1f} %"


def agreement(
    points: Sequence[Placed], videos: Mapping[str, AnnotatedVideo], classes: Sequence[str]
) -> Agreement:
    """Compares points with the instances of their videos.

    Args:
        points: of training videos; those of a video without instances, or without a place in time,
            are not compared.
        videos: by id.
        classes: names.
    """
    kept = [p for p in points if p.time_s is not None and len(videos[p.video].instances)]
    if not kept:
        return Agreement(total=0, inside=0, outside=0, readings=())
    table = _Table(kept, videos)
    time_s = table.time_s
    inside = table.own.inside(table.group, time_s)
    outside = int(((time_s < 0) | (time_s > table.duration_s)).sum())
    found = [] if inside.all() else list(_readings(table, classes))
    found.sort(key=lambda r: (-r.inside, r.free, -round(r.depth, 2)))
    return Agreement(
        total=len(kept), inside=int(inside.sum()), outside=outside, readings=tuple(found)
    )


class _Line:
    """Segments of groups, each group on a stretch of its own of one line, overlaps merged."""

    def __init__(self, group: Ints, start_s: Floats, end_s: Floats) -> None:
        self._last_s = float(end_s.max(initial=0.0))
        order = np.lexsort((start_s, group))
        start, end = (self._place(group[order], v[order]) for v in (start_s, end_s))
        reach = np.maximum.accumulate(end) if len(end) else end
        first = np.flatnonzero(np.append(True, start[1:] > reach[:-1])[: len(start)])
        self.group = group[order][first]
        self.start, self.end = start[first], reach[np.append(first[1:], len(start)) - 1]

    def inside(self, group: Ints, time_s: Floats) -> NDArray[np.bool_]:
        """(N,): whether `time_s` lies in a segment of its group."""
        return self.depth(group, time_s) >= 0

    def depth(self, group: Ints, time_s: Floats) -> Floats:
        """(N,): 0 at the edges to 1 in the middle of a segment, -1 outside."""
        place = self._place(group, time_s)
        row = np.searchsorted(self.start, place + _TOUCH_S, "right") - 1
        start, end = self.start[row], self.end[row]
        within = (place >= start - _TOUCH_S) & (place <= end + _TOUCH_S)
        from_middle = np.abs(2 * (place - start) / np.maximum(end - start, _TOUCH_S) - 1)
        found: Floats = np.where(within, np.clip(1 - from_middle, 0, 1), -1.0)
        return found

    def pairs(self, group: Ints) -> tuple[Ints, Floats, Floats]:
        """Each of N groups with each of its segments: (P,) which of the N, start_s and end_s."""
        first, behind = (np.searchsorted(self.group, group, side) for side in ("left", "right"))
        number = behind - first
        which = np.repeat(np.arange(len(group)), number)
        row = np.arange(len(which)) - np.repeat(np.cumsum(number) - number - first, number)
        zero = self._place(group[which], np.zeros(len(which)))
        return which, self.start[row] - zero, self.end[row] - zero

    def _place(self, group: Ints, time_s: Floats) -> Floats:
        clipped = np.clip(time_s, -_MARGIN_S / 2, self._last_s + _MARGIN_S / 2)
        return group * (self._last_s + 2 * _MARGIN_S) + clipped


class _Table:
    """The points as columns, and the instances of their videos as lines."""

    def __init__(self, points: Sequence[Placed], videos: Mapping[str, AnnotatedVideo]) -> None:
        ids = list(dict.fromkeys(p.video for p in points))
        index = {id: n for n, id in enumerate(ids)}
        parts = [videos[id].instances for id in ids]
        instances = Segments.concatenate(parts)
        of = np.repeat(np.arange(len(ids)), [len(part) for part in parts]).astype(np.int64)
        self.label = np.array([p.row.label for p in points], np.int64)
        self.video = np.array([index[p.video] for p in points], np.int64)
        self.value = np.array([p.row.value for p in points], np.float64)
        self.in_seconds = points[0].row.in_seconds
        self.fps = np.array([p.fps or np.nan for p in points])
        self.stated_fps = np.array([videos[p.video].fps or np.nan for p in points])
        self.duration_s = np.array([videos[p.video].duration_s for p in points])
        num = 1 + int(max(self.label.max(initial=0), instances.label.max(initial=0)))
        self.num_labels, self.group = num, self.video * num + self.label
        self.own = _Line(of * num + instances.label, instances.start_s, instances.end_s)
        self.of, self.instances = of, instances

    @property
    def time_s(self) -> Floats:
        """(N,) seconds as the points are read at present."""
        with np.errstate(over="ignore"):
            return self.value if self.in_seconds else self.value / self.fps

    @cached_property
    def any(self) -> _Line:
        """The instances of a video, whatever their class."""
        return _Line(self.of, self.instances.start_s, self.instances.end_s)

    def reading(self, name: str, cause: str, time_s: Floats, free: int = 2) -> Reading:
        """The points at `time_s`."""
        depth = self.own.depth(self.group, time_s)
        inside = depth >= 0
        middle = float(depth[inside].mean()) if inside.any() else 0.0
        return Reading(name=name, cause=cause, inside=int(inside.sum()), depth=middle, free=free)


def _readings(table: _Table, classes: Sequence[str]) -> Iterator[Reading]:
    """Every other way to read the points."""
    if table.in_seconds:
        yield from _rates(
            table, "as frames at", "the column time_s holds frames: name it point and"
        )
        fix = "name it point and pass --point-fps 1000"
        yield _milliseconds(table, f"the column time_s holds milliseconds: {fix}")
    else:
        given = np.unique(table.fps)
        present = f"{given[0]:g}" if len(given) == 1 else "what was given"
        yield from _rates(table, "at", f"the frame rate is not {present}:")
        cause = "the column point holds seconds: name it time_s"
        yield table.reading("in seconds", cause, table.value)
        fix = "pass --point-fps 1000"
        yield _milliseconds(table, f"the column point holds milliseconds: {fix}")
    yield from _offset(table)
    yield from _other_classes(table, classes)


def _milliseconds(table: _Table, cause: str) -> Reading:
    return table.reading("in milliseconds", cause, table.value / 1000)


def _rates(table: _Table, name: str, cause: str) -> Iterator[Reading]:
    known = np.isfinite(table.stated_fps)
    if known.any():
        fps = np.where(known, table.stated_fps, np.where(np.isfinite(table.fps), table.fps, 1.0))
        if table.in_seconds or (fps != table.fps).any():
            fix = f"{cause} pass --point-fps json"
            yield table.reading(f"{name} the fps of the annotations", fix, table.value / fps)
    for rate in COMMON_FPS:
        if table.in_seconds or (table.fps != rate).any():
            fix = f"{cause} pass --point-fps {rate:g}"
            found = table.reading(f"{name} {rate:g} fps", fix, table.value / rate)
            # Of equal ones a whole number is likelier, so 29.97 must be better than 30.
            yield found if rate == round(rate) else replace(found, depth=0.0)


def _offset(table: _Table) -> Iterator[Reading]:
    """The constant offset that brings most points into an instance of their class."""
    unit = np.ones(len(table.value)) if table.in_seconds else table.fps
    which, start_s, end_s = table.own.pairs(table.group)
    edges = [(edge_s - table.time_s[which]) * unit[which] for edge_s in (start_s, end_s)]
    place, step = np.concatenate(edges), np.repeat([1, -1], len(which))
    order = np.lexsort((-step, place))
    place, number = place[order], np.cumsum(step[order])
    present = int(table.own.inside(table.group, table.time_s).sum())
    best = np.flatnonzero(number == number.max(initial=present + 1))
    if not len(best):
        return
    low, high = place[best], place[best + 1]
    middle = low / 2 + high / 2
    nearest = int(np.abs(middle).argmin())
    moved = float(middle[nearest])
    if not np.isfinite(moved):  # some points are at infinity, which the frame rate made of them
        return
    if not table.in_seconds and low[nearest] <= round(moved) <= high[nearest]:
        moved = round(moved)
    amount = f"{abs(moved):.4g} {'s' if table.in_seconds else 'frames'}"
    late, name = ("late", "earlier") if moved < 0 else ("early", "later")
    cause = f"an offset: the points are about {amount} too {late}"
    yield table.reading(f"{amount} {name}", cause, table.time_s + moved / unit, free=_FREE)


def _other_classes(table: _Table, classes: Sequence[str]) -> Iterator[Reading]:
    """The points where any instance would do."""
    time_s = table.time_s
    depth = table.any.depth(table.video, time_s)
    wrong = (depth >= 0) & ~table.own.inside(table.group, time_s)
    pairs: Counter[tuple[int, int]] = Counter()
    for label in range(table.num_labels if wrong.any() else 0):
        held = table.own.inside(table.video[wrong] * table.num_labels + label, time_s[wrong])
        pairs.update((int(own), label) for own in table.label[wrong][held])
    if pairs:
        (own, other), number = pairs.most_common(1)[0]
        cause = (
            f"the classes disagree: {number} points of {classes[own]!r} lie in instances of "
            f"{classes[other]!r}"
        )
        yield Reading(
            name="in an instance of any class", cause=cause, inside=int((depth >= 0).sum()),
            depth=float(depth[depth >= 0].mean()), free=_FREE - 1,
        )  # fmt: skip
