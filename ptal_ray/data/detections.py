"""Ground truth and detections in the files of the ActivityNet challenge."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.types import Segments
from ptal_ray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Instances of one subset.

    Args:
        classes: names of the labels present, sorted.
        segments: instances by video, in file order; videos without any are included.
        ignored: what was left out, by reason.
    """

    classes: tuple[str, ...]
    segments: dict[str, Segments]
    ignored: dict[str, int]


def read_ground_truth(path: Path, subset: str | None = None) -> GroundTruth:
    """Instances of {"database": {id: {"subset", "annotations": [{"segment", "label"}]}}}.

    Args:
        path: the file.
        subset: compared without regard to case; None where the file has one subset.

    Raises:
        DataError: unreadable, of another layout, several subsets and none chosen, or no instance.
    """
    database = _mapping(_load(path), "database", path)
    found = Counter(str(_entry(v, i, path).get("subset", "")).lower() for i, v in database.items())
    if subset is None and len(found) > 1:
        names = ", ".join(f"{name or '(none)'} ({n} videos)" for name, n in sorted(found.items()))
        raise DataError(f"{path}: subsets {names}; choose one with --subset")
    if subset is not None and subset.lower() not in found:
        raise DataError(f"{path}: no video of subset {subset!r}; there are {', '.join(found)}")
    ignored: Counter[str] = Counter(ground_truth_end_before_start=0, ground_truth_not_finite=0)
    rows: dict[str, list[tuple[float, float, str]]] = {}
    for video, entry in database.items():
        if subset is not None and str(entry.get("subset", "")).lower() != subset.lower():
            continue
        rows[video] = []
        for place, start, end, item in _items(entry.get("annotations", []), f"{path}: {video}"):
            label = _label(item, place)
            if not (np.isfinite(start) and np.isfinite(end)):
                ignored["ground_truth_not_finite"] += 1
            elif end < start:
                ignored["ground_truth_end_before_start"] += 1
            else:
                rows[video].append((start, end, label))
    classes = tuple(sorted({label for items in rows.values() for _, _, label in items}))
    if not classes:
        raise DataError(f"{path}: no instance in {subset or 'the file'}; nothing to evaluate")
    index = {name: label for label, name in enumerate(classes)}
    segments = {
        video: _segments([(s, e, index[name], 1.0) for s, e, name in items])
        for video, items in rows.items()
    }
    return GroundTruth(classes=classes, segments=segments, ignored=dict(ignored))


def read_detections(path: Path, truth: GroundTruth) -> tuple[dict[str, Segments], dict[str, int]]:
    """Detections of {"results": {id: [{"segment", "label", "score"}]}}, and what was left out.

    Left out: labels the ground truth lacks, values that are not finite, and segments whose end is
    not after their start, unless they equal an instance of length zero. Kept, as false positives:
    detections in videos the ground truth lacks. Either is counted.

    Args:
        path: the file.
        truth: what they are compared with.

    Returns:
        Detections by video in file order, and counts by reason ("unknown_video" counts detections
        that were kept; "videos_without_detections" counts videos of the ground truth).

    Raises:
        DataError: unreadable or of another layout.
    """
    results = _mapping(_load(path), "results", path)
    index = {name: label for label, name in enumerate(truth.classes)}
    counts: Counter[str] = Counter(
        unknown_video=0, unknown_label=0, end_not_after_start=0, not_finite=0
    )
    found = {}
    for video, items in results.items():
        kept = []
        instances = _zero_length(truth.segments.get(video, Segments.empty()))
        for place, start, end, item in _items(items, f"{path}: {video}"):
            score = _number(item.get("score"), f"{place}: score")
            label = index.get(_label(item, place), -1)
            reason = _reason(start, end, score, label, instances)
            if reason:
                counts[reason] += 1
                continue
            counts["unknown_video"] += video not in truth.segments
            kept.append((start, end, label, score))
        found[video] = _segments(kept)
    without = sum(not len(found.get(v, ())) for v in truth.segments)
    return found, dict(counts) | {"videos_without_detections": without}


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
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(
        json.dumps({"version": "1.3", "external_data": {}, "results": results}), encoding="utf-8"
    )
    os.replace(beside, path)


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


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def _mapping(content: Any, key: str, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise DataError(f'{path}: no object "{key}" at the top; the ActivityNet layout is needed')
    found: dict[str, Any] = content[key]
    return found


def _entry(value: Any, video: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {video}: an object with subset and annotations is needed")
    return value


def _items(items: Any, place: str) -> Any:
    """(place, start, end, item) of each entry of a list."""
    if not isinstance(items, list):
        raise DataError(f"{place}: a list of segments is needed, got {type(items).__name__}")
    for position, item in enumerate(items):
        where = f"{place}[{position}]"
        segment = item.get("segment") if isinstance(item, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            raise DataError(f'{where}: "segment": [start, end] in seconds is needed')
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


def _segments(rows: list[tuple[float, float, int, float]]) -> Segments:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Segments(
        start_s=columns[0], end_s=columns[1], label=columns[2].astype(np.int64), score=columns[3]
    )
