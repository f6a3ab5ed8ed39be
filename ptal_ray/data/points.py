"""Point labels: published ones from CSV, or simulated from instances."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptal_ray.data.choices import KINDS
from ptal_ray.data.class_names import known
from ptal_ray.data.findings import Problem
from ptal_ray.data.types import Points, Segments
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import DataError
from ptal_ray.storage.ownership import begins_with, check_file
from ptal_ray.storage.whole import whole

HUMAN = (2.0, 3.0)  # PROPOSED: parameters of a beta distribution, of mean 0.4
EDGE = 0.1  # share of an instance at either end in which a boundary point lies
_HEAD = ("class", "video_id", "time_s")
SPREAD = 0.25  # standard deviation of a gaussian point, in lengths of its instance


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """One line of a points CSV.

    Args:
        line: its number in the file.
        video: video id as written.
        label: class index.
        value: frame number, or seconds where `in_seconds`; may be before the video.
    """

    line: int
    video: str
    label: int
    value: float
    in_seconds: bool

    def time_s(self, fps: float) -> float:
        """Seconds of the point; frame p at `fps` is p / fps."""
        return self.value if self.in_seconds else self.value / fps


def point_rows(
    path: Path,
    classes: tuple[str, ...],
    columns: Sequence[str] = (),
    dropped: Set[str] = frozenset(),
) -> tuple[list[PointRow], list[str]]:
    """The valid rows of a points CSV, and a message for each invalid row.

    Columns `class`, `video_id` and `point` (a frame number; or `time_s`) are read, as LACP and
    HR-Pro write them. `start_frame` and `stop_frame` (the ground truth) are not read.

    Args:
        path: the CSV.
        classes: class names.
        columns: column names of a CSV without a header line.
        dropped: classes whose rows are skipped.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    rows: list[PointRow] = []
    problems: list[str] = []
    index = {name.strip(): label for label, name in enumerate(classes)}
    for line, plain in _lines(path, columns):
        value = _number(plain["value"])
        place = f"{path}:{line}: video {plain['video_id']}"
        if plain["class"] in dropped:
            continue
        if plain["class"] not in index:
            near = known(plain["class"], classes)
            text = f"{place}: class {plain['class']!r} is unknown; {near}"
            problems.append(Problem(text, "points of unknown classes"))
        elif not np.isfinite(value):
            text = f"{place}: point {plain['value']!r}; must be a number of 0 or more"
            problems.append(Problem(text, "points that are not numbers of 0 or more"))
        else:
            rows.append(
                PointRow(
                    line=line,
                    video=plain["video_id"],
                    label=index[plain["class"]],
                    value=value,
                    in_seconds=plain["unit"] == "time_s",
                )  # fmt: skip
            )
    return rows, problems


def simulate_points(segments: Segments, rng: np.random.Generator, kind: str = "gaussian") -> Points:
    """One point per instance.

    "uniform" is uniform over the instance. "gaussian" is around its middle with a standard
    deviation of SPREAD times its length, drawn again while outside. The points of the published
    `point_gaussian` files of THUMOS14, GTEA, BEOID and ActivityNet 1.3 are much closer to the
    middle (one frame or 1 % of the length) and so reveal it; these do not.
    "human" models a click soon after the action is recognised: mostly before the middle, rarely
    near an edge; it is not fitted to annotations. "centre" is the middle. "boundary" is uniform
    over the first and the last EDGE of the instance.

    Args:
        segments: N instances.
        rng: random generator.
        kind: one of KINDS.

    Returns:
        N points, ascending, each inside its instance.

    Raises:
        DataError: the kind is unknown.
    """
    if kind not in KINDS:
        raise DataError(f"simulated points {kind!r}: allowed are {', '.join(KINDS)}")
    count = len(segments)
    if kind == "uniform":
        position = rng.uniform(0, 1, count)
    elif kind == "human":
        position = rng.beta(*HUMAN, count)
    elif kind == "centre":
        position = np.full(count, 0.5)
    elif kind == "boundary":
        position = rng.uniform(0, EDGE, count) + (1 - EDGE) * rng.integers(0, 2, count)
    else:
        position = rng.normal(0.5, SPREAD, count)
        while (outside := (position < 0) | (position >= 1)).any():
            position[outside] = rng.normal(0.5, SPREAD, int(outside.sum()))
    time_s = segments.start_s + position * (segments.end_s - segments.start_s)
    return sorted_points(list(zip(time_s.tolist(), segments.label.tolist(), strict=True)))


def write_points_csv(
    path: Path,
    points: Mapping[str, Points],
    classes: tuple[str, ...],
    *,
    replace: bool = False,
) -> None:
    """Writes `class,video_id,time_s`, the format that `point_rows` reads, atomically.

    Args:
        path: the CSV.
        points: of each video, by id.
        classes: class names.
        replace: whether to replace an existing points CSV.

    Raises:
        DataError: the file cannot be written, or exists and is not replaced.
    """
    head = ",".join(_HEAD) + "\r\n"
    check_file(path, lambda there: begins_with(there, head), replace=replace)
    rows = [
        (classes[label], video, time_s)
        for video, labelled in points.items()
        for time_s, label in zip(labelled.time_s.tolist(), labelled.label, strict=True)
    ]
    try:
        with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([_HEAD, *rows])
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); choose another file"
        ) from error


def sorted_points(pairs: list[tuple[float, int]]) -> Points:
    """Points from (seconds, label) pairs in any order."""
    ordered = sorted(pairs)
    return Points(
        time_s=np.array([t for t, _ in ordered], np.float64),
        label=np.array([c for _, c in ordered], np.int64),
    )


def ascending(points: Points) -> Points:
    """The same points by time; equal times keep their order."""
    order = np.argsort(points.time_s, kind="stable")
    return Points(time_s=points.time_s[order], label=points.label[order])


def no_points() -> Points:
    """No point labels, as a test video has."""
    return sorted_points([])


def _lines(path: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {class, video_id, value, unit}) of a CSV; every other column is dropped."""
    columns, rows = read_csv(path, names)
    unit = "time_s" if "time_s" in columns else "point"
    if missing := {"class", "video_id", unit} - set(columns):
        raise DataError(
            f"{path}: no column {', '.join(sorted(missing))} in the first line, which has "
            f"{', '.join(columns)}; required are class, video_id, and point (a frame number) or "
            "time_s (seconds)"
        )
    for line, row in rows:
        plain = {name: row[name] for name in ("class", "video_id")}
        yield line, plain | {"value": row[unit], "unit": unit}


def _number(text: str) -> float:
    try:
        return float("nan" if "_" in text else text)
    except ValueError:
        return float("nan")
