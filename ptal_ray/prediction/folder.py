"""A folder of new features, one <id>.npy of shape (T, D) a video, and their durations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptal_ray.data.annotations import number
from ptal_ray.data.checks import duration_problems, feature_problems, id_problems
from ptal_ray.data.feature_file import npy
from ptal_ray.data.types import FloatArray, Grid, Video
from ptal_ray.data.user_files import read_csv
from ptal_ray.data.video_ids import same_id
from ptal_ray.errors import DataError

COVERED = (0.8, 1.25)  # share of a video that its snippets must cover


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What features must be to suit a model.

    Args:
        dim: D.
        dtype: what they are rounded to, as those of its training were.
        grid: where their snippets lie in time.
        any_stride: whether durations may contradict the grid.
    """

    dim: int
    dtype: str
    grid: Grid
    any_stride: bool = False

    def covered_s(self, length: int) -> float:
        """Seconds that `length` snippets see; the first and the last one reach over their edge."""
        return length * self.grid.stride_s + 2 * self.grid.offset_s


@dataclass(frozen=True, kw_only=True)
class ScorableFile:
    """A file whose header is sound: T, seconds of its video, and (bytes, time of last change)."""

    id: str
    path: Path
    length: int
    duration_s: float
    stamp: tuple[int, int]

    def video(self, expected: Expected) -> Video:
        """The video with its features in memory.

        Raises:
            DataError: they cannot be read, changed, are not finite, or overflow the data type.
        """
        features = _opened(self.path)
        if features.shape != (self.length, expected.dim):
            raise DataError(f"changed to shape {features.shape} meanwhile; start again")
        _first(feature_problems(self.id, features, expected.dim), self.id)
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(features, dtype=expected.dtype)
        if not np.isfinite(kept).all():
            raise DataError(
                f"value {np.abs(features).max():g} overflows {expected.dtype}, which the model "
                "was trained on; scale the features as those of its training"
            )
        return Video(id=self.id, features=kept, duration_s=self.duration_s, grid=expected.grid)


def feature_ids(folder: Path) -> tuple[str, ...]:
    """Ids of the videos in a folder, sorted.

    Raises:
        DataError: it is no folder, or has no .npy file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds <id>.npy files")
    ids = sorted(path.stem for path in folder.glob("*.npy") if not path.name.startswith("."))
    if not ids:
        raise DataError(f"{folder}: holds no .npy file; one <id>.npy of shape (T, D) a video")
    return tuple(ids)


def feature_files(
    folder: Path, ids: tuple[str, ...], expected: Expected, durations: Mapping[str, float] | None
) -> tuple[list[ScorableFile], dict[str, str]]:
    """Reads the headers of a folder.

    Args:
        folder: of the files.
        ids: the videos.
        expected: what suits the model.
        durations: seconds by id; None takes what the snippets cover.

    Returns:
        The files that may be scored, and why others may not, by id.
    """
    sound: list[ScorableFile] = []
    broken: dict[str, str] = {}
    for id in ids:
        try:
            sound.append(_file(folder / f"{id}.npy", id, expected, durations))
        except DataError as error:
            broken[id] = str(error)
    return sound, broken


def _file(
    path: Path, id: str, expected: Expected, durations: Mapping[str, float] | None
) -> ScorableFile:
    _first(id_problems(id), id)
    shape, kind = (features := _opened(path)).shape, features.dtype.kind
    if len(shape) != 2 or 0 in shape or kind not in "fiu":
        _first(feature_problems(id, features, 0), id)
    if shape[1] != expected.dim:
        turned = "; it looks transposed: save its transpose" if shape[0] == expected.dim else ""
        raise DataError(
            f"features of shape {shape}, {shape[1]} numbers a snippet; the model was trained on "
            f"(T, {expected.dim}){turned}"
        )
    length = int(shape[0])
    duration_s: float | None = expected.covered_s(length)
    if durations is not None:
        duration_s = durations.get(same_id(id, durations) or id)
    if duration_s is None:
        raise DataError("the durations have no row for it; add one")
    _check_cover(length, duration_s, expected)
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    return ScorableFile(id=id, path=path, length=length, duration_s=duration_s, stamp=stamp)


def _check_cover(length: int, duration_s: float, expected: Expected) -> None:
    """The snippets must cover about the video: a rate that is clearly wrong is refused."""
    covered_s = expected.covered_s(length)
    low, high = COVERED[0] * duration_s, COVERED[1] * duration_s + expected.covered_s(1)
    if not expected.any_stride and not low <= covered_s <= high:
        raise DataError(
            f"{length} snippets of {expected.grid.stride_s:g} s cover {covered_s:.1f} s of a "
            f"video of {duration_s:.1f} s; correct its duration, --fps and --stride, or pass "
            "--allow-stride"
        )


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by video id of a CSV with the columns video and duration.

    Raises:
        DataError: it is no such file, or a duration is not positive.
    """
    columns, rows = read_csv(path)
    seconds = "duration" if "duration" in columns else "duration_s"
    if missing := {"video", seconds} - set(columns):
        raise DataError(
            f"{path}: no column {', '.join(sorted(missing))} in the first line; video and duration "
            "in seconds are needed"
        )
    found: dict[str, float] = {}
    for line, row in rows:
        id, duration_s = row["video"], number(row[seconds])
        for problem in duration_problems(id, duration_s, row[seconds]):
            raise DataError(f"{path}:{line}: {problem}")
        if found.setdefault(id, duration_s) != duration_s:
            raise DataError(f"{path}:{line}: video {id}: given before with another duration")
    return found


def _opened(path: Path) -> FloatArray:
    """A feature file, mapped; messages leave out the path, which the id stands for."""
    try:
        return npy(path).read()
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{path}: ")) from error


def _first(problems: Iterable[str], id: str) -> None:
    """Raises the first problem, without the words that name the video."""
    for problem in problems:
        raise DataError(problem.removeprefix(f"video {id}: "))
