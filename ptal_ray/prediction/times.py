"""The times of snippets in new videos: frame rates, strides and durations, which may differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptal_ray.data.checks import duration_problems
from ptal_ray.data.features.preparation import recorded_extraction
from ptal_ray.data.importing.annotations import number
from ptal_ray.data.rates import Frames, RateSource, given_frames, snippet_frames, stated_frames
from ptal_ray.data.readers.release import database
from ptal_ray.data.types import Grid
from ptal_ray.data.user_files import nfc, read_csv
from ptal_ray.data.video_ids import same_id
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.training.model_file import ModelFile

TABLE = "videos.csv"  # written by an extraction beside its features


@dataclass(frozen=True, kw_only=True)
class TimeFlags:
    """The flags about time; None for a flag that was not given.

    Args:
        durations: CSV of seconds by video.
        annotations: JSON in the ActivityNet layout: durations, and rates for `fps` "json".
        fps: frames, or samples, per second; the unit of stride and window.
        stride: frames from snippet to snippet, for videos without their own.
        window: frames of a snippet, for videos without their own.
    """

    durations: Path | None = None
    annotations: Path | None = None
    fps: RateSource | None = None
    stride: float | None = None
    window: float | None = None

    def check(self) -> None:
        """Check what can be checked without a model.

        Raises:
            ConfigError: a flag is wrong or needs another.
        """
        for flag, value in {"stride": self.stride, "window": self.window}.items():
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{flag} {value}: must be positive")
            if value is not None and self.fps is None:
                raise ConfigError(f"--{flag}: also pass --fps, which gives its unit")
        if self.fps == "json" and self.annotations is None:
            raise ConfigError("--fps json: give the JSON with the rates by --annotations")


@dataclass(frozen=True, kw_only=True)
class Times:
    """The times of snippets in new videos.

    Args:
        trained: the grid of training, or the medians of several; its offset scales with the stride.
        shared: whether `trained` applies to videos without further information.
        frames: by id; None if no rates were given.
        stride, window: for frames without their own; 0 if not given.
        rates: the file that gave the frames, for messages.
        durations: seconds by id; None for the time that the snippets cover.
        some: whether this is also the duration of a video that `durations` lacks.
    """

    trained: Grid
    shared: bool = True
    frames: Mapping[str, Frames] | None = None
    stride: float = 0.0
    window: float = 0.0
    rates: Path = field(default_factory=Path)
    durations: Mapping[str, float] | None = None
    some: bool = False

    def of(self, id: str, length: int) -> tuple[Grid, float]:
        """(grid, seconds) of a video of `length` snippets.

        Raises:
            DataError: its rate, stride or duration is not known.
        """
        duration_s = None
        if self.durations is not None:
            duration_s = self.durations.get(same_id(nfc(id), self.durations) or id)
            if duration_s is None and not (self.some and (self.frames or self.shared)):
                raise DataError("the durations have no row for it; add one")
        if self.frames is not None:
            grid = self._counted(id, self.frames)
        elif self.shared:
            grid = self.trained
        else:
            assert duration_s is not None  # `read_times` makes sure
            grid = self._scaled(duration_s / length)
        return grid, covered_s(length, grid) if duration_s is None else duration_s

    def _counted(self, id: str, frames: Mapping[str, Frames]) -> Grid:
        known = same_id(nfc(id), frames) or nfc(id)
        found, lines = snippet_frames(frames, self.stride, self.window, self.rates, [known])
        for line in lines:
            raise DataError(line)
        own = found[known]
        return own.grid if own.window else self._scaled(own.stride / own.fps)

    def _scaled(self, stride_s: float) -> Grid:
        """A grid with another stride and windows in the same proportion as in training."""
        share = self.trained.offset_s / self.trained.stride_s
        return Grid(stride_s=stride_s, offset_s=share * stride_s)


def covered_s(length: int, grid: Grid) -> float:
    """Seconds covered by `length` snippets, including the windows of the first and the last one."""
    return length * grid.stride_s + 2 * grid.offset_s


def read_times(flags: TimeFlags, model: ModelFile, folder: Path, ids: Sequence[str]) -> Times:
    """The times of the videos in a folder.

    Values without a flag are from `videos.csv` of an extraction, else from training.

    Args:
        flags: the given flags.
        model: the model for the features.
        folder: of the features.
        ids: of the videos.

    Raises:
        ConfigError: a flag is missing.
        DataError: a file of rates or durations cannot be read.
    """
    stride, window = _counts(flags, model)
    durations, rates = _durations(flags), flags.fps
    if recorded_extraction(folder) and (table := folder / TABLE).exists():
        durations = durations or read_durations(table)
        rates = rates or table
    if rates is None and durations is None and not _one_grid(model):
        least, greatest = model.strides
        raise ConfigError(
            f"the model was trained on videos of different strides ({least:g} to {greatest:g} s), "
            "so those of the new ones are needed: give --fps json, a CSV or a number, or "
            "--durations to spread the snippets of a video evenly"
        )
    return Times(
        trained=model.grid,
        shared=_one_grid(model),
        frames=None if rates is None else _frames(rates, flags.annotations, ids),
        stride=stride,
        window=window,
        rates=rates if isinstance(rates, Path) else flags.annotations or folder,
        durations=durations,
        some=not flags.durations and flags.annotations is not None,
    )


def _one_grid(model: ModelFile) -> bool:
    return model.data.grid is not None


def _counts(flags: TimeFlags, model: ModelFile) -> tuple[float, float]:
    """The given (stride, window); recordings are cut like those of the training."""
    prepared = model.preparation
    if not prepared.of_recordings:
        if isinstance(flags.fps, float) and flags.stride is None:
            raise ConfigError("--fps: also pass --stride, the frames between snippets")
        return flags.stride or 0.0, flags.window or 0.0
    for name, own in (("stride", prepared.stride), ("window", prepared.window)):
        if getattr(flags, name) not in (None, own):
            raise ConfigError(
                f"--{name} {getattr(flags, name):g}: the model takes recordings with --{name} "
                f"{own}; leave the flag out"
            )
    return prepared.stride, prepared.window


def _frames(rates: RateSource, annotations: Path | None, ids: Sequence[str]) -> dict[str, Frames]:
    stated: dict[str, Frames | None] = dict.fromkeys(map(nfc, ids))
    if rates == "json":
        assert annotations is not None  # `TimeFlags.check` makes sure
        videos = database(annotations)[1]
        stated = {id: stated_frames(entry) for id, entry in videos.items()}
    return given_frames(rates, stated, lambda id: same_id(id, stated))


def _durations(flags: TimeFlags) -> dict[str, float] | None:
    if flags.durations:
        return read_durations(flags.durations)
    return _stated_durations(flags.annotations) if flags.annotations else None


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by video id of a CSV with the columns video and duration.

    Raises:
        DataError: it is another kind of file, or a duration is not positive.
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
            raise DataError(f"{path}:{line}: video {id}: an earlier line has another duration")
    return found


def _stated_durations(path: Path) -> dict[str, float]:
    """Seconds by video id of a JSON in the ActivityNet layout, of the videos that state them."""
    stated = {id: entry.get("duration") for id, entry in database(path)[1].items()}
    found = {id: value for id, value in stated.items() if value is not None}
    for id, value in found.items():
        for problem in duration_problems(id, number(value), repr(value)):
            raise DataError(f"{path}: {problem}")
    return {id: number(value) for id, value in found.items()}
