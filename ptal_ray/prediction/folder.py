"""A folder of new features or recordings: files that suit a model, and problems of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptal_ray.data.checks import feature_problems, id_problems
from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.features.preparation import UNKNOWN, Preparation
from ptal_ray.data.features.windows import channels_of
from ptal_ray.data.readers.release import Given, open_file
from ptal_ray.data.types import FloatArray, Grid, Video
from ptal_ray.errors import DataError
from ptal_ray.prediction.times import Times, covered_s

FEATURES = (".npy",)
RECORDINGS = (".npy", ".npz", ".csv")  # as in the layout `signals`
NEAR = 0.05  # relative difference of the stride of features from that of training
COVERED = (0.8, 1.25)  # fraction of a video that its snippets must cover


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The requirements of a model on features.

    Args:
        dim: D, after `preparation`.
        dtype: rounding of the features, as in its training.
        preparation: the preparation of the files of its training.
        strides: seconds, smallest and largest of its training; None if any is accepted.
        any_stride: whether strides, and durations that contradict them, may differ.
    """

    dim: int
    dtype: str
    preparation: Preparation = UNKNOWN
    strides: tuple[float, float] | None = None
    any_stride: bool = False

    def prepared(self, features: FloatArray) -> FloatArray:
        """Features (T, D) in the form of those in the store of the training.

        Raises:
            DataError: they overflow the data type.
        """
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(features, dtype=self.dtype)
        if not np.isfinite(kept).all():
            raise DataError(
                f"value {np.abs(features).max():g} overflows {self.dtype}, which the model was "
                "trained on; scale the features as those of its training"
            )
        return kept


@dataclass(frozen=True, kw_only=True)
class ScorableFile:
    """A file with a valid header.

    Args:
        id: of the video.
        path: of the file.
        length: T.
        duration_s: seconds of the video.
        grid: of the snippets.
        stamp: size in bytes, and time of the last change.
    """

    id: str
    path: Path
    length: int
    duration_s: float
    grid: Grid
    stamp: tuple[int, int]

    def video(self, expected: Expected) -> Video:
        """The video with its features in memory.

        Raises:
            DataError: they cannot be read, have changed, are not finite, or overflow the data type.
        """
        file = _file(self.path)
        with _named_by_id(self.path):
            features = expected.preparation.opened(file).read()
        if features.shape != (self.length, expected.dim):
            raise DataError(f"changed to shape {features.shape} meanwhile; start again")
        _first(feature_problems(self.id, features, expected.dim), self.id)
        return Video(
            id=self.id,
            features=expected.prepared(features),
            duration_s=self.duration_s,
            grid=self.grid,
        )


def feature_ids(folder: Path, *, of_recordings: bool) -> tuple[str, ...]:
    """Ids of the videos in a folder, sorted.

    Args:
        folder: of the files.
        of_recordings: whether they are raw channels, which may also be CSV files.

    Raises:
        DataError: it is not a folder, or has no such file.
    """
    suffixes = _suffixes(of_recordings)
    named = " or ".join(f"<id>{suffix}" for suffix in suffixes)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; give one that holds {named} files")
    seen = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in seen if path.suffix.lower() in suffixes]
    for path in found:
        if path.suffix not in suffixes:
            raise DataError(f"{path}: rename it to {path.stem}{path.suffix.lower()}")
    if not found:
        what = "(samples, channels) a recording" if of_recordings else "(T, D) a video"
        raise DataError(f"{folder}: holds no {' or '.join(suffixes)} file; {named} of {what}")
    files = Counter(path.stem for path in found)
    for id in sorted(id for id, number in files.items() if number > 1):
        raise DataError(f"{folder}: several files of {id}; keep one of them")
    return tuple(sorted(files))


def feature_files(
    folder: Path, ids: Sequence[str], expected: Expected, times: Times
) -> tuple[list[ScorableFile], dict[str, str]]:
    """Read the headers of the files in a folder.

    Args:
        folder: of the files.
        ids: the videos.
        expected: requirements of the model.
        times: of the videos.

    Returns:
        The files that can be scored, and the problems of the others by id.
    """
    sound: list[ScorableFile] = []
    broken: dict[str, str] = {}
    suffixes = _suffixes(expected.preparation.of_recordings)
    for id in ids:
        paths = [folder / f"{id}{suffix}" for suffix in suffixes]
        try:
            path = next((path for path in paths if path.exists()), paths[0])
            sound.append(_scorable(path, id, expected, times))
        except DataError as error:
            broken[id] = str(error)
    return sound, broken


def _suffixes(of_recordings: bool) -> tuple[str, ...]:
    return RECORDINGS if of_recordings else FEATURES


def _scorable(path: Path, id: str, expected: Expected, times: Times) -> ScorableFile:
    _first(id_problems(id), id)
    raw = _file(path)
    with _named_by_id(path):
        given = raw.shape()
        if len(given) != 2 or 0 in given:
            _first(feature_problems(id, raw.read(), 0), id)
        length, dim = expected.preparation.opened(raw).shape()
    if dim != expected.dim:
        raise DataError(another_width(given, expected))
    grid, duration_s = times.of(id, length)
    _check_stride(grid, expected)
    _check_cover(length, duration_s, grid, expected)
    status = path.stat()
    return ScorableFile(
        id=id,
        path=path,
        length=length,
        duration_s=duration_s,
        grid=grid,
        stamp=(status.st_size, status.st_mtime_ns),
    )


def another_width(shape: tuple[int, ...], expected: Expected) -> str:
    """The message for features, or a recording, with another number of columns."""
    if expected.preparation.of_recordings:
        channels = channels_of(expected.dim, expected.preparation.window)
        return (
            f"recording of shape {shape}, {shape[1]} channels a sample; the model was trained on "
            f"(samples, {channels})"
        )
    if expected.preparation.transposed:
        return (
            f"features of shape {shape}, {shape[0]} numbers a snippet; the model was trained on "
            f"files of shape ({expected.dim}, T)"
        )
    turned = "; it looks transposed: save its transpose" if shape[0] == expected.dim else ""
    return (
        f"features of shape {shape}, {shape[1]} numbers a snippet; the model was trained on "
        f"(T, {expected.dim}){turned}"
    )


def _check_stride(grid: Grid, expected: Expected) -> None:
    """Check that the stride is close to one of training."""
    if expected.strides is None or expected.any_stride:
        return
    least, greatest = expected.strides
    if not (1 - NEAR) * least <= grid.stride_s <= (1 + NEAR) * greatest:
        trained = f"{least:g}" if least == greatest else f"{least:g} to {greatest:g}"
        raise DataError(
            f"the model was trained on snippets of {trained} s, and these features have "
            f"{grid.stride_s:g} s; extract them at that stride, correct --fps and --stride, "
            "or pass --allow-stride"
        )


def _check_cover(length: int, duration_s: float, grid: Grid, expected: Expected) -> None:
    """Check that the snippets cover about the whole video, to detect clearly wrong rates."""
    covered = covered_s(length, grid)
    low, high = COVERED[0] * duration_s, COVERED[1] * duration_s + covered_s(1, grid)
    if not expected.any_stride and not low <= covered <= high:
        raise DataError(
            f"{length} snippets of {grid.stride_s:g} s cover {covered:.1f} s of a "
            f"video of {duration_s:.1f} s; correct its duration, --fps and --stride, or pass "
            "--allow-stride"
        )


def _file(path: Path) -> FeatureFile:
    return open_file(path, Given())


@contextmanager
def _named_by_id(path: Path) -> Iterator[None]:
    """Remove the path from messages; the id replaces it."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{path}: ")) from error


def _first(problems: Iterable[str], id: str) -> None:
    """Raise the first problem, without the name of the video."""
    for problem in problems:
        raise DataError(problem.removeprefix(f"video {id}: "))
