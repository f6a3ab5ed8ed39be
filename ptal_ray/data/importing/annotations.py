"""Annotation files of the ActivityNet layout, as an import reads them: with all that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.checks import duration_problems, id_problems
from ptal_ray.data.class_names import label_problem, read_classes
from ptal_ray.data.exclusions import without
from ptal_ray.data.findings import Problem
from ptal_ray.data.rates import Frames, positive, stated_frames
from ptal_ray.data.types import Segments
from ptal_ray.data.user_files import read_json, read_lines
from ptal_ray.data.video_ids import same_id
from ptal_ray.errors import DataError

TRAINING, VALIDATION, TESTING = {"train", "training"}, {"val", "validation"}, {"test", "testing"}
DROPPED = ("instances whose start is negative", "instances whose end is not after their start")
LAYOUT = "entries of another layout"


@dataclass(frozen=True, kw_only=True)
class AnnotatedVideo:
    """What the annotation file says of a video.

    Args:
        id, subset, duration_s, instances: as they must be.
        frames: its frame rate, and stride and window of its features, where the file has them.
        feature_s: seconds that its features cover, where the file has "feature_seconds".
    """

    id: str
    subset: str
    duration_s: float
    instances: Segments
    frames: Frames | None = None
    feature_s: float | None = None

    @property
    def fps(self) -> float | None:
        """Frames per second, where the file says so."""
        return self.frames.fps if self.frames else None


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """A whole annotation file.

    Args:
        classes: the file's "classes", else all labels, sorted.
        videos: those of the train and the test subset, in file order.
        left_out: counts by reason.
        unchosen: ids of the file's videos of no chosen subset.
        problems: a line each; without one, everything above is sound.
    """

    classes: tuple[str, ...]
    videos: tuple[AnnotatedVideo, ...]
    left_out: dict[str, int]
    unchosen: frozenset[str]
    problems: tuple[str, ...]


def read_annotations(
    path: Path,
    *,
    lists: Mapping[str, Path] | None = None,
    drop_invalid: bool = False,
    content: Mapping[str, Any] | None = None,
    exclude: Set[str] = frozenset(),
    drop_labels: Set[str] = frozenset(),
) -> Annotations:
    """Reads {"database": {id: {"subset", "duration", "annotations": [{"segment", "label"}]}}}.

    Subsets called training are train and those called test are test. Validation is test beside a
    training subset (ActivityNet, GTEA, BEOID) and train without one (THUMOS14). A testing subset
    without annotations beside a training and a validation subset is left out.

    Args:
        path: the file.
        lists: "train" and "test" -> files of one video id a line, in place of the subsets.
        drop_invalid: leave out, and count, instances whose end is not after their start or whose
            start is negative. Times that are no numbers are problems in any case.
        content: what the file would hold, in place of reading it.
        exclude: ids of videos to leave out.
        drop_labels: classes to leave out, with their instances.

    Raises:
        DataError: the file is unreadable or of another layout.
    """
    content = _object(path) if content is None else content
    database = content.get("database")
    if not isinstance(database, dict) or not all(isinstance(v, dict) for v in database.values()):
        raise DataError(f'{path}: no object "database" of videos; the ActivityNet layout is needed')
    content, left_out = without(content, exclude, drop_labels, path)
    database = content["database"]
    classes, wrong = read_classes(content.get("classes"), _labels(database))
    reader = _Reader(path, classes, drop_invalid)
    for text in wrong:
        reader.complain(text, "classes")
    subsets = _listed(database, lists, reader, exclude) if lists else _named(database, reader)
    videos = [reader.video(id, entry, subsets[id]) for id, entry in database.items() if subsets[id]]
    reader.left_out.update(left_out)
    unchosen = frozenset(id for id, subset in subsets.items() if not subset)
    reader.count("videos of no chosen subset", len(unchosen))
    return Annotations(
        classes=reader.classes,
        videos=tuple(v for v in videos if v is not None),
        left_out=dict(reader.left_out),
        unchosen=unchosen,
        problems=tuple(reader.problems),
    )


class _Reader:
    """Turns entries into videos and gathers what is wrong with them."""

    def __init__(self, path: Path, classes: tuple[str, ...], drop_invalid: bool) -> None:
        self.path, self.classes, self.drop_invalid = path, classes, drop_invalid
        self.index = {name: label for label, name in enumerate(classes)}
        self.left_out: Counter[str] = Counter()
        self.problems: list[str] = []

    def complain(self, text: str, kind: str) -> None:
        """Note a problem of the file."""
        self.problems.append(Problem(f"{self.path}: {text}", kind))

    def count(self, reason: str, number: int) -> None:
        """Count items that were left out for a reason."""
        if number:
            self.left_out[reason] += number

    def video(self, id: str, entry: dict[str, Any], subset: str) -> AnnotatedVideo | None:
        """Read the entry of a video and note its problems."""
        duration_s, written = number(entry.get("duration")), repr(entry.get("duration"))
        wrong = [*id_problems(id), *duration_problems(id, duration_s, written)]
        for problem in wrong:
            self.complain(problem, "videos with a wrong id or duration")
        items = entry.get("annotations", [])
        if not isinstance(items, list):
            self.complain(f"video {id}: annotations are {items!r}; a list is needed", LAYOUT)
            return None
        rows = [row for n, item in enumerate(items) if (row := self.instance(id, n, item))]
        told = entry.get("fps")
        if told is not None and positive(told) is None and not np.isfinite(number(told)):
            self.complain(f"video {id}: fps {told!r}; a number is needed, or no fps", "frame rates")
        columns = np.array(rows, np.float64).reshape(-1, 3).T
        return None if wrong else AnnotatedVideo(
            id=id,
            subset=subset,
            duration_s=duration_s,
            instances=Segments(
                start_s=columns[0], end_s=columns[1], label=columns[2].astype(np.int64),
                score=np.ones(len(rows)),
            ),
            frames=stated_frames(entry),
            feature_s=positive(entry.get("feature_seconds")),
        )  # fmt: skip

    def instance(self, id: str, position: int, item: Any) -> tuple[float, float, int] | None:
        """Read an instance: start, end and label; None if it is invalid, which is noted."""
        place = f"video {id}, instance {position}"
        segment = item.get("segment") if isinstance(item, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            text = f'{place}: {item!r}; {{"segment": [start, end], "label"}} is needed'
            self.complain(text, LAYOUT)
            return None
        start, end = (number(value) for value in segment)
        written = f"{place}: [{segment[0]!r}, {segment[1]!r}]"
        if wrong := label_problem(item.get("label"), self.classes):
            self.complain(f"{place}: {wrong}", "labels")
        elif not (np.isfinite(start) and np.isfinite(end)):
            text = f"{written}; two numbers of seconds are needed, such as 65.5"
            self.complain(text, "instances whose times are not numbers")
        elif 0 <= start < end:
            return start, end, self.index[item["label"]]
        elif self.drop_invalid:
            self.count(_reason(start), 1)
        else:
            self.complain(
                f"{written} s; 0 <= start < end is needed: correct it, or leave such instances "
                "out with --drop-invalid",
                _reason(start),
            )
        return None


def _reason(start: float) -> str:
    """Why an instance is invalid, of two finite numbers."""
    return DROPPED[0 if start < 0 else 1]


def _named(database: dict[str, Any], reader: _Reader) -> dict[str, str]:
    """id -> "train", "test" or "", from the subset that each video names."""
    named = {id: str(entry.get("subset", "")).lower() for id, entry in database.items()}
    present = set(named.values())
    for unknown in sorted(present - TRAINING - VALIDATION - TESTING):
        first = next(id for id, name in named.items() if name == unknown)
        reader.complain(
            f"video {first}: subset {unknown!r}; allowed are training, validation and test, or "
            "pass --train-list and --test-list",
            "subsets",
        )
    role = dict.fromkeys(TRAINING, "train") | dict.fromkeys(TESTING, "test")
    role |= dict.fromkeys(VALIDATION, "test" if present & TRAINING else "train")
    if present & TRAINING and present & VALIDATION and present & TESTING:
        role |= dict.fromkeys(TESTING, "")
        if any(database[id].get("annotations") for id, name in named.items() if name in TESTING):
            reader.complain(
                "training, validation and test are all annotated; say which videos are which "
                "with --train-list and --test-list",
                "subsets",
            )
    return {id: role.get(name, "") for id, name in named.items()}


def _listed(
    database: dict[str, Any], lists: Mapping[str, Path], reader: _Reader, exclude: Set[str]
) -> dict[str, str]:
    """id -> "train", "test" or "", from the lists, which may name excluded videos too."""
    excluded = dict.fromkeys(exclude)
    subsets = dict.fromkeys(database, "")
    for subset, path in lists.items():
        for line, name in read_lines(path):
            id = same_id(name, database)
            if id is None and same_id(name, excluded):
                continue
            if id is None:
                text = f"{path}:{line}: {reader.path} has no video {name}"
                reader.problems.append(Problem(text, "lists"))
            elif subsets[id] not in ("", subset):
                text = f"{path}:{line}: video {id} is on the other list too"
                reader.problems.append(Problem(text, "lists"))
            else:
                subsets[id] = subset
    return subsets


def _labels(database: dict[str, Any]) -> list[Any]:
    lists = (v.get("annotations") for v in database.values())
    items = (a for items in lists if isinstance(items, list) for a in items)
    return [a.get("label") for a in items if isinstance(a, dict)]


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def number(value: Any) -> float:
    """A number; text is accepted, as released files hold it. Anything else is NaN."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return float("nan")  # Python would take true and 1_000 for numbers
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
