"""Counts and durations of a data set by split and class, and the warnings that follow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ptal_ray.data.class_names import alike
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Points, Segments


class Labelled(Protocol):
    """A video without its features."""

    @property
    def id(self) -> str:
        """Of the video."""

    @property
    def subset(self) -> str:
        """The split it is in."""

    @property
    def duration_s(self) -> float:
        """Its length, seconds."""

    @property
    def instances(self) -> Segments:
        """Its annotated actions."""

    @property
    def points(self) -> Points:
        """Its annotated points."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Numbers of one class in one split, or of all classes.

    Args:
        videos: that have an instance or a point of it.
        instances: all of them.
        points: all of them.
        shortest_s, median_s, longest_s: durations of the instances; 0 without instances.
        instances_a_video: mean over `videos`.
        background: fraction of the duration of the split outside all of the instances.
    """

    videos: int
    instances: int
    points: int
    shortest_s: float
    median_s: float
    longest_s: float
    instances_a_video: float
    background: float


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: all classes together, and each class by name."""

    videos: int
    hours: float
    all: Row
    classes: dict[str, Row]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StoredVideo:
    """A video of a store, without its features."""

    id: str
    subset: str
    duration_s: float
    instances: Segments
    points: Points


def stored_videos(store: FeatureStore) -> list[StoredVideo]:
    """All videos of a store, in stored order of each split."""
    return [
        StoredVideo(
            id=id, subset=subset, duration_s=store.duration_s(id),
            instances=store.annotations(id), points=store.points(id),
        )
        for subset in ("train", "test")
        for id in store.ids(subset)
    ]  # fmt: skip


def statistics(videos: Iterable[Labelled], classes: Sequence[str]) -> dict[str, Split]:
    """The numbers of both splits."""
    every = list(videos)
    found = {}
    for subset in ("train", "test"):
        own = [v for v in every if v.subset == subset]
        total_s = sum(v.duration_s for v in own)
        having = defaultdict[int, list[Labelled]](list)
        for video in own:
            for label in {*video.instances.label.tolist(), *video.points.label.tolist()}:
                having[label].append(video)
        found[subset] = Split(
            videos=len(own),
            hours=total_s / 3600,
            all=_row(own, None, total_s),
            classes={n: _row(having[label], label, total_s) for label, n in enumerate(classes)},
        )
    return found


NOT_SEALED = "a search reports cross-validated numbers; no test set is kept apart"


def judge(
    videos: Sequence[Labelled],
    classes: Sequence[str],
    problems: list[str],
    remarks: Remarks,
    *,
    dropped: int = 0,
) -> None:
    """Checks the annotations and points for errors and for what should be warned about.

    Args:
        videos: those of both splits.
        classes: class names.
        problems: errors are added: splits with videos and no instance, if any was dropped.
        remarks: warnings are added: other splits without an instance, classes that cannot be
            learned, similar class names, and duplicate instances and points.
        dropped: number of invalid instances that were left out.
    """
    found = statistics(videos, classes)
    for subset, split in found.items():
        if split.videos and not split.all.instances and not dropped:
            remarks.note(_NO_INSTANCE, f"{subset}: {split.videos} videos")
        elif split.videos and not split.all.instances:
            problems.append(
                Problem(
                    f"the {subset} split has {split.videos} videos and no instance; check "
                    "its annotations, or choose the videos with --train-list and --test-list",
                    "splits without an instance",
                )
            )
    if found["train"].videos and not found["test"].videos:
        remarks[f"training videos and no test split; {NOT_SEALED}"] += found["train"].videos
    train, test = found["train"].classes, found["test"].classes
    for name in classes:
        if not train[name].instances and not train[name].points:
            kind = _TEST_ALONE if test[name].instances else "classes without an instance"
            remarks.note(kind, name)
        elif not train[name].points:
            remarks.note(_NO_POINT, name)
    for group in alike(classes):
        remarks.note("classes that differ only in case or spaces", " and ".join(map(repr, group)))
    for video in videos:
        _note_repeated(video, classes, remarks)


def _note_repeated(video: Labelled, classes: Sequence[str], remarks: Remarks) -> None:
    s, p = video.instances, video.points
    kinds = {
        "duplicate instances, kept as annotated": zip(s.label, s.start_s, s.end_s, strict=True),
        "duplicate points": zip(p.label, p.time_s, strict=True),
    }
    for kind, rows in kinds.items():
        for (label, *times), number in Counter(rows).items():
            if number > 1:
                where = ", ".join(f"{t:g}" for t in times)
                text = f"video {video.id}: {classes[label]} at {where} s"
                remarks.note(kind, text, number - 1)


_TEST_ALONE = (
    "classes that are only in the test split; they cannot be learned and enter the mAP with AP 0"
)
_NO_INSTANCE = "splits without an instance; mAP cannot be computed on them"
_NO_POINT = (
    "classes without a training point; point supervision cannot learn them, and if tested they "
    "enter the mAP with AP 0"
)


def table(found: dict[str, Split], most: int | None = None) -> list[str]:
    """Lines of text, one per split and class; at most the `most` classes with the fewest training
    instances."""
    names = list(found["train"].classes)
    order = sorted(names, key=lambda n: found["train"].classes[n].instances) if most else names
    shown = order if most is None or len(order) <= most else order[:most]
    width = max(5, *(min(len(n), 30) for n in shown))
    lines = [
        f"{'split':<6}{'class':<{width}}{'videos':>8}{'instances':>10}{'a video':>8}{'points':>8}"
        f"{'shortest':>10}{'median':>8}{'longest':>9}{'background':>11}"
    ]
    for subset, split in found.items():
        lines.append(_line(subset, "all", split.all, width))
        lines += [_line("", name, split.classes[name], width) for name in shown]
    if len(shown) < len(order):
        lines.append(f"and {len(order) - len(shown)} more classes (`info` lists all)")
    return lines


def _line(subset: str, name: str, row: Row, width: int) -> str:
    counts = (
        f"{subset:<6}{name[:30]:<{width}}{row.videos:>8}{row.instances:>10}"
        f"{row.instances_a_video:>8.1f}{row.points:>8}"
    )
    if not row.instances:  # durations and background are not known
        return f"{counts}{'-':>10}{'-':>8}{'-':>9}{'-':>11}"
    return (
        f"{counts}{row.shortest_s:>8.1f} s{row.median_s:>6.1f} s{row.longest_s:>7.1f} s"
        f"{100 * row.background:>9.1f} %"
    )


def _row(videos: Sequence[Labelled], label: int | None, total_s: float) -> Row:
    """Of all classes, or of one in the videos that have it; `total_s` is that of the split."""
    chosen = [v.instances.take(_of(v.instances.label, label)) for v in videos]
    points = [int(_of(v.points.label, label).sum()) for v in videos]
    lengths = np.concatenate([np.zeros(0), *(s.end_s - s.start_s for s in chosen)])
    covered_s = sum(covered(s, v.duration_s) for s, v in zip(chosen, videos, strict=True))
    present = sum(bool(len(s) or n) for s, n in zip(chosen, points, strict=True))
    low, middle, high = np.quantile(lengths, [0, 0.5, 1]).tolist() if len(lengths) else (0, 0, 0)
    return Row(
        videos=present if label is not None else len(videos),
        instances=len(lengths),
        points=sum(points),
        shortest_s=float(low), median_s=float(middle), longest_s=float(high),
        instances_a_video=len(lengths) / max(1, present if label is not None else len(videos)),
        background=1 - covered_s / total_s if total_s else 0.0,
    )  # fmt: skip


def covered(instances: Segments, duration_s: float) -> float:
    """Seconds of a video that lie in an instance or more."""
    order = np.argsort(instances.start_s)
    start = instances.start_s[order]
    end = np.minimum(np.maximum.accumulate(instances.end_s[order]), duration_s)
    before = np.concatenate([[0.0], end[:-1]])
    return float(np.maximum(end - np.maximum(start, before), 0).sum())


def _of(labels: Any, label: int | None) -> Any:
    return np.ones(len(labels), np.bool_) if label is None else labels == label
