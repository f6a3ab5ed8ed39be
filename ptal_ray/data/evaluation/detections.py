"""Ground truth and detections in the files of the ActivityNet challenge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.exclusions import without
from ptal_ray.data.types import Segments
from ptal_ray.data.user_files import read_json
from ptal_ray.data.video_ids import same_id, spellings
from ptal_ray.errors import DataError
from ptal_ray.storage.whole import write_whole


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Instances of one subset.

    Args:
        classes: names of the labels present, sorted.
        segments: instances by video, in file order; videos without any are included.
        durations: seconds by video, NaN where the file does not say.
        elsewhere: ids of the videos of other subsets.
        ignored: what was left out, by reason.
        excluded: ids of videos left out by wish, without "v_".
    """

    classes: tuple[str, ...]
    segments: dict[str, Segments]
    durations: dict[str, float]
    elsewhere: frozenset[str]
    ignored: dict[str, int]
    excluded: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class DetectionFile:
    """Detections, and how they were read.

    Args:
        segments: detections by video in file order; ids are those of the ground truth.
        renamed: ids of the file that the ground truth has with or without "v_".
        unknown_labels: how many detections were left out for a label the ground truth lacks.
        text_scores: classes whose scores are text; their scores here are ranks.
        ignored: what was left out, by reason.
    """

    segments: dict[str, Segments]
    renamed: dict[str, str]
    unknown_labels: dict[str, int]
    text_scores: tuple[str, ...]
    ignored: dict[str, int]


def read_ground_truth(
    path: Path,
    subset: str | None = None,
    *,
    drop_degenerate: bool = False,
    exclude: Set[str] = frozenset(),
    drop_labels: Set[str] = frozenset(),
) -> GroundTruth:
    """Instances of {"database": {id: {"subset", "annotations": [{"segment", "label"}]}}}.

    Args:
        path: the file.
        subset: compared without regard to case; None where the file has one subset.
        drop_degenerate: leave out instances that end before they start or are not finite.
        exclude: ids of videos to leave out, with or without "v_".
        drop_labels: classes to leave out with their instances, such as ambiguous ones.

    Raises:
        DataError: unreadable, of another layout, several subsets and none chosen, or no instance.
    """
    content, left_out = without(_database(path), exclude, drop_labels, path)
    database = content["database"]
    found = Counter(str(video.get("subset", "")).lower() for video in database.values())
    if subset is None and len(found) > 1:
        names = ", ".join(f"{name or '(none)'} ({n} videos)" for name, n in sorted(found.items()))
        raise DataError(f"{path}: subsets {names}; choose one with --subset")
    if subset is not None and subset.lower() not in found:
        names = ", ".join(map(repr, found))  # quoted, for a space in them is not seen otherwise
        raise DataError(f"{path}: no video of subset {subset!r}; there are {names}")
    ignored: Counter[str] = Counter(ground_truth_end_before_start=0, ground_truth_not_finite=0)
    ignored.update({what.replace(" ", "_"): number for what, number in left_out.items()})
    rows: dict[str, list[tuple[float, float, str]]] = {}
    for video, entry in database.items():
        if subset is not None and str(entry.get("subset", "")).lower() != subset.lower():
            continue
        rows[video] = []
        items = _items(entry.get("annotations", []), f"{path}: {video}", null=drop_degenerate)
        for place, start, end, item in items:
            label = _label(item, place)
            if drop_degenerate and not (np.isfinite(start) and np.isfinite(end)):
                ignored["ground_truth_not_finite"] += 1
            elif drop_degenerate and end < start:
                ignored["ground_truth_end_before_start"] += 1
            else:
                rows[video].append((start, end, label))
    classes = tuple(sorted({label for items in rows.values() for _, _, label in items}))
    if not classes:
        raise DataError(f"{path}: no instance in {subset or 'the file'}; nothing to evaluate")
    index = {name: label for label, name in enumerate(classes)}
    return GroundTruth(
        classes=classes,
        segments={
            video: _segments([(s, e, index[name], 1.0) for s, e, name in items])
            for video, items in rows.items()
        },
        durations={video: _duration_s(database[video]) for video in rows},
        elsewhere=frozenset(database) - frozenset(rows),
        ignored=dict(ignored),
        excluded=frozenset(id.removeprefix("v_") for id in exclude),
    )


def read_detections(
    path: Path, truth: GroundTruth, *, drop_degenerate: bool = False
) -> DetectionFile:
    """Detections of {"results": {id: [{"segment", "label", "score"}]}}.

    Labels the ground truth lacks are left out, and the videos that it leaves out by wish. Ids are
    matched with and without "v_". Scores are what the official code makes of them: null is NaN,
    and where all scores of a class are text they are ordered as text.

    Args:
        path: the file.
        truth: what they are compared with.
        drop_degenerate: also leave out values that are not finite and segments whose end is not
            after their start, unless they equal an instance of length zero; read text as numbers.

    Raises:
        DataError: unreadable or of another layout, two ids of one video, no score, or scores of a
            class that are both text and numbers.
    """
    every = _mapping(read_json(path), "results", path)
    results = {i: v for i, v in every.items() if i.removeprefix("v_") not in truth.excluded}
    ids = _matched_ids(results, truth, path)
    reader = _Reader(path, truth, drop_degenerate)
    rows = {ids[video]: reader.rows(video, ids[video], items) for video, items in results.items()}
    text = _rank_text_scores(rows, truth.classes, path)
    return DetectionFile(
        segments={video: _segments(kept) for video, kept in rows.items()},
        renamed={name: id for name, id in ids.items() if name != id},
        unknown_labels=dict(reader.unknown_labels),
        text_scores=text,
        ignored=dict(reader.ignored)
        | ({"detection_videos_excluded": number} if (number := len(every) - len(results)) else {}),
    )


def _matched_ids(names: Mapping[str, Any], truth: GroundTruth, path: Path) -> dict[str, str]:
    """Each id of a detection file as the ground truth has it; unknown ones stay."""
    ids: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        known = None if name in truth.elsewhere else same_id(name, truth.segments)
        ids[name] = id = known or name
        if known and taken.setdefault(id, name) != name:
            raise DataError(
                f"{path}: {taken[id]!r} and {name!r} are both the video {id!r} of the ground "
                "truth; keep one of them"
            )
        both = set(spellings(name)[1:])
        if known and name != id and both <= truth.segments.keys():
            raise DataError(
                f"{path}: {name!r} may be {' or '.join(map(repr, sorted(both)))} of the ground "
                "truth; write the id as it is there"
            )
    return ids


class _Reader:
    """Reads detections video by video and counts what it leaves out."""

    def __init__(self, path: Path, truth: GroundTruth, drop_degenerate: bool) -> None:
        self.path, self.truth, self.drop = path, truth, drop_degenerate
        self.index = {name: label for label, name in enumerate(truth.classes)}
        self.ignored = Counter(unknown_label=0, end_not_after_start=0, not_finite=0)
        self.unknown_labels: Counter[str] = Counter()

    def rows(self, video: str, id: str, items: Any) -> list[tuple[float, float, int, Any]]:
        """(start, end, label, score) of those that are kept; a score may be text."""
        kept = []
        instances = _zero_length(self.truth.segments.get(id, Segments.empty()))
        for place, start, end, item in _items(items, f"{self.path}: {video}", null=self.drop):
            score = self._score(item, place)
            name = _label(item, place)
            label = self.index.get(name, -1)
            reason = "" if label >= 0 else "unknown_label"
            if self.drop:
                reason = _reason(start, end, score, label, instances)
            if not reason:
                kept.append((start, end, label, score))
                continue
            self.ignored[reason] += 1
            if reason == "unknown_label":
                self.unknown_labels[name] += 1
        return kept

    def _score(self, item: dict[str, Any], place: str) -> Any:
        score = item.get("score")
        if self.drop:
            return _number(score, f"{place}: score")
        if "score" not in item:
            raise DataError(
                f'{place}: no "score"; a number is needed, or leave it out with --drop-degenerate'
            )
        return score if isinstance(score, str) else _number(score, f"{place}: score")


def _rank_text_scores(
    rows: dict[str, list[tuple[float, float, int, Any]]], classes: tuple[str, ...], path: Path
) -> tuple[str, ...]:
    """Replaces text by its rank within its class, in `rows`; returns these classes."""
    scores: dict[int, dict[Any, None]] = {}  # of each class, those met, in order
    textual: dict[int, str] = {}
    for *_, label, score in (row for kept in rows.values() for row in kept):
        scores.setdefault(label, {})[score] = None
        if isinstance(score, str):
            textual.setdefault(label, score)
    for label, text in textual.items():
        for score in scores[label]:
            if not isinstance(score, str):
                raise DataError(
                    f"{path}: scores of {classes[label]!r} are text ({text!r}) and numbers "
                    f"({score:g}), which have no order; write numbers"
                )
    ranks = {label: {s: n for n, s in enumerate(sorted(scores[label]))} for label in textual}
    if ranks:
        for video, kept in rows.items():
            rows[video] = [(s, e, c, ranks[c][x] if c in ranks else x) for s, e, c, x in kept]
    return tuple(classes[label] for label in sorted(ranks))


def write_detections(
    path: Path, detections: Mapping[str, Segments], classes: tuple[str, ...]
) -> None:
    """Writes {"results": ...}, at once or not at all; `read_detections` reads it back."""
    results = {
        video: [
            {"segment": [start, end], "label": classes[label], "score": score}
            for start, end, label, score in zip(
                found.start_s.tolist(),
                found.end_s.tolist(),
                found.label.tolist(),
                found.score.tolist(),
                strict=True,
            )
        ]
        for video, found in detections.items()
    }
    content = {"version": "1.3", "external_data": {}, "results": results}
    write_whole(path, json.dumps(content))


def _reason(
    start: float, end: float, score: float, label: int, instances: set[tuple[float, float, int]]
) -> str:
    """Why a detection is left out; empty where it is kept."""
    if not (np.isfinite(start) and np.isfinite(end) and np.isfinite(score)):
        return "not_finite"
    if label < 0:
        return "unknown_label"
    if end <= start and (start, end, label) not in instances:
        return "end_not_after_start"
    return ""


def _zero_length(instances: Segments) -> set[tuple[float, float, int]]:
    nothing = instances.take(instances.start_s == instances.end_s)
    return set(zip(nothing.start_s, nothing.end_s, nothing.label, strict=True))


def _mapping(content: Any, key: str, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise DataError(f'{path}: no object "{key}" at the top; the ActivityNet layout is needed')
    found: dict[str, Any] = content[key]
    return found


def _database(path: Path) -> dict[str, dict[str, Any]]:
    videos = _mapping(read_json(path), "database", path)
    return {"database": {id: _entry(video, id, path) for id, video in videos.items()}}


def _entry(value: Any, video: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {video}: an object with subset and annotations is needed")
    return value


def _items(items: Any, place: str, *, null: bool) -> Any:
    """(place, start, end, item) of each entry of a list; null is NaN where it is allowed."""
    if not isinstance(items, list):
        raise DataError(f"{place}: a list of segments is needed, got {type(items).__name__}")
    for position, item in enumerate(items):
        where = f"{place}[{position}]"
        segment = item.get("segment") if isinstance(item, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            raise DataError(f'{where}: "segment": [start, end] in seconds is needed')
        if None in segment and not null:
            raise DataError(
                f"{where}: segment {json.dumps(segment)}; two numbers are needed, or leave it out "
                "with --drop-degenerate"
            )
        start, end = (_number(value, f"{where}: segment") for value in segment)
        yield where, start, end, item


def _label(item: dict[str, Any], place: str) -> str:
    label = item.get("label")
    if not isinstance(label, str):
        raise DataError(f'{place}: "label" is {label!r}; a class name is needed')
    return label


def _number(value: Any, place: str) -> float:
    """A number; text is accepted, as some released ground truths hold it. null is NaN."""
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {value!r} is not a number") from error
    except OverflowError as error:
        raise DataError(f"{place}: a number below 1.8e308 is needed") from error


def _duration_s(entry: dict[str, Any]) -> float:
    """Seconds; NaN where it is missing or no positive number, since it serves remarks alone."""
    try:
        duration_s = float(entry.get("duration", "nan"))
    except (TypeError, ValueError, OverflowError):
        return float("nan")
    return duration_s if 0 < duration_s < np.inf else float("nan")


def _segments(rows: list[tuple[float, float, int, float]]) -> Segments:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Segments(
        start_s=columns[0], end_s=columns[1], label=columns[2].astype(np.int64), score=columns[3]
    )
