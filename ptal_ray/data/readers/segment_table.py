"""Segments of recordings in a CSV, as annotations in the ActivityNet layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.importing.annotations import number
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import ConfigError, DataError

_NAMES = ("video", "video_id", "recording")  # of the column of ids
_SUBSETS = ("train", "test")


def annotated_by(
    table: Path, points: Path | None, signals: Mapping[str, FeatureFile], rate: float
) -> dict[str, Any]:
    """The annotations of recordings, whose durations follow from their samples.

    Args:
        table: a CSV with the columns video, class, start_s, end_s and, optionally, subset. A
            recording with a row is in the test split unless its subset is train, all others are in
            the training split. A row without class and times only names its recording.
        points: a CSV of points, whose classes count too; None for none.
        signals: the recordings by id.
        rate: samples per second.

    Raises:
        DataError: a column is missing, a recording has no file or no samples, or a value is wrong.
    """
    columns, rows = read_csv(table)
    named = next((name for name in _NAMES if name in columns), "video")
    if missing := [name for name in (named, "class", "start_s", "end_s") if name not in columns]:
        raise DataError(
            f"{table}: no column {', '.join(missing)} in the first line, which has "
            f"{', '.join(columns)}; required are video, class, start_s and end_s; optional is "
            "subset"
        )
    videos: dict[str, dict[str, Any]] = {
        id: {"subset": "train", "duration": _samples(signal) / rate, "annotations": []}
        for id, signal in signals.items()
    }
    classes, seen = _classes(points), dict[str, str]()
    for line, row in rows:
        place, id = f"{table}:{line}", row[named]
        if id not in videos:
            raise DataError(f"{place}: recording {id!r} has no file; name one of the files")
        subset = row.get("subset", "") or "test"
        if subset not in _SUBSETS or seen.setdefault(id, subset) != subset:
            raise DataError(
                f"{place}: subset {subset!r}; must be train or test, the same for all rows of a "
                "recording"
            )
        videos[id]["subset"] = subset
        if row["class"]:
            classes.add(row["class"])
            segment = [_seconds(place, name, row[name]) for name in ("start_s", "end_s")]
            videos[id]["annotations"].append({"label": row["class"], "segment": segment})
        elif row["start_s"] or row["end_s"]:
            raise DataError(
                f"{place}: a segment without a class; name its class, or leave start_s and end_s "
                "empty to name the recording only"
            )
    return {"classes": sorted(classes), "database": videos}


def one_rate(rate: Any) -> float:
    """The one rate of all recordings.

    Raises:
        ConfigError: it is not a number.
    """
    if not isinstance(rate, int | float):
        raise ConfigError("--rate: must be a number where the annotations are a CSV of segments")
    return float(rate)


def _classes(points: Path | None) -> set[str]:
    if points is None:
        return set()
    return {row.get("class", "") for _, row in read_csv(points)[1]} - {""}


def _samples(signal: FeatureFile) -> int:
    samples = signal.shape()[0]
    if not samples:
        raise DataError(f"{signal.file}: holds no samples; record it again, or remove the file")
    return samples


def _seconds(place: str, name: str, text: str) -> float:
    if not math.isfinite(value := number(text)):
        raise DataError(f"{place}: {name} {text!r}; must be a number of seconds")
    return value
