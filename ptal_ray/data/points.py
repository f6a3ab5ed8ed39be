"""Point labels: published ones from CSV, or simulated from instances."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import DataError

KINDS = ("gaussian", "uniform")


def read_points_csv(
    path: Path, fps: float | Mapping[str, float], classes: tuple[str, ...]
) -> dict[str, Points]:
    """Point labels of a CSV in the layout of LACP and HR-Pro.

    Columns `class`, `video_id` and `point` (a frame number) are read. `start_frame` and
    `stop_frame`, the answer, are dropped here and go nowhere.

    Args:
        path: the CSV.
        fps: frames per second that the frame numbers count, one value or one per video id.
        classes: class names.

    Raises:
        DataError: with file, line, value and what is allowed.
    """
    index = {name: label for label, name in enumerate(classes)}
    found: dict[str, list[tuple[float, int]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"class", "video_id", "point"} - set(rows.fieldnames or ())
            if missing:
                raise DataError(f"{path}: no column {', '.join(sorted(missing))} in the first line")
            for line, row in enumerate(rows, start=2):
                place = f"{path}:{line}"
                if row["class"] not in index:
                    raise DataError(
                        f"{place}: class {row['class']!r} is unknown; known are {_some(classes)}"
                    )
                video = row["video_id"]
                rate = fps if isinstance(fps, int | float) else fps.get(video)
                if rate is None:
                    continue  # a video that the annotations do not have
                found.setdefault(video, []).append(
                    (_frame(row["point"], place) / rate, index[row["class"]])
                )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return {video: _points(pairs) for video, pairs in found.items()}


def simulate_points(
    segments: Segments, rng: np.random.Generator, kind: str = "gaussian"
) -> Points:
    """One point an instance.

    Args:
        segments: N instances.
        rng: where randomness comes from.
        kind: "uniform" over the instance, or "gaussian" around its middle with a standard
            deviation of a quarter of its length, drawn again while outside (SF-Net, LACP).
    """
    if kind not in KINDS:
        raise DataError(f"points {kind!r}: allowed are {', '.join(KINDS)}")
    count = len(segments)
    if kind == "uniform":
        position = rng.uniform(0, 1, count)
    else:
        position = 0.5 + 0.25 * rng.standard_normal(count)
        while (outside := (position < 0) | (position >= 1)).any():
            position[outside] = 0.5 + 0.25 * rng.standard_normal(int(outside.sum()))
    time_s = segments.start_s + position * (segments.end_s - segments.start_s)
    return _points(list(zip(time_s.tolist(), segments.label.tolist(), strict=True)))


def write_points_csv(
    path: Path, points: Mapping[str, Points], fps: float, classes: tuple[str, ...]
) -> None:
    """Writes `class,video_id,point` with frame numbers at `fps`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "video_id", "point"])
        for video, labelled in points.items():
            for time_s, label in zip(labelled.time_s, labelled.label, strict=True):
                writer.writerow([classes[label], video, int(np.floor(time_s * fps))])


def _points(pairs: list[tuple[float, int]]) -> Points:
    ordered = sorted(pairs)
    return Points(
        time_s=np.array([t for t, _ in ordered], np.float64),
        label=np.array([c for _, c in ordered], np.int64),
    )


def _frame(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{place}: point {text!r} is not a frame number")
    return value


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
