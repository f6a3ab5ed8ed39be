"""Frame rates, strides and windows, for all videos or per video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ptal_ray.data.types import Grid
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import DataError

RateSource = float | Path | Literal["json"]  # one for all, a CSV, or the annotations of each video
COMMON_FPS = (10.0, 15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0)
_SPELLINGS = ("fps", "framerate", "videofps", "avgframerate", "rframerate")
_SHOWN = 10  # ids that a message lists
_FPS_FIX = (
    'add a positive number there ("fps" of a video, a line of a CSV), or pass --fps with one '
    "number for all videos or a CSV with columns video,fps"
)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How the frames of a video are counted.

    Args:
        fps: frames per second that stride and window count.
        stride: frames from snippet to snippet; 0 where it is not known.
        window: frames that a snippet sees; 0 means `stride`.
    """

    fps: float
    stride: float = 0.0
    window: float = 0.0

    @property
    def window_s(self) -> float:
        """Seconds that a snippet sees."""
        return (self.window or self.stride) / self.fps

    @property
    def grid(self) -> Grid:
        """Where the snippets lie: each in the middle of its window."""
        stride_s = self.stride / self.fps
        return Grid(stride_s=stride_s, offset_s=(self.window_s - stride_s) / 2)


def given_frames(
    rates: RateSource, stated: Mapping[str, Frames | None], same: Callable[[str], str | None]
) -> dict[str, Frames]:
    """The frames of the videos for which `rates` has a rate, by video id.

    Args:
        rates: where they come from.
        stated: what the annotations say of each video; None where they give no rate.
        same: the id in `stated` of a video of the CSV, or None.

    Raises:
        DataError: the CSV cannot be read, or a value in it is wrong.
    """
    if isinstance(rates, Path):
        return _read(rates, same)
    if rates == "json":
        return {id: frames for id, frames in stated.items() if frames is not None}
    return {id: Frames(fps=rates) for id in stated}


def snippet_frames(
    found: Mapping[str, Frames], stride: float, window: float, place: Path, ids: Sequence[str]
) -> tuple[dict[str, Frames], list[str]]:
    """The frames of the videos `ids`, with `stride` and `window` where `found` has none.

    Args:
        found: by video id.
        stride, window: of the videos that have none of their own; 0 where none was given.
        place: the file that gives the rates.
        ids: of all videos.

    Returns:
        The frames by video id, and a line on those whose rate, or whose stride, is missing.
    """
    full = {
        id: replace(own, stride=own.stride or stride, window=own.window or window)
        for id in ids
        if (own := found.get(id)) is not None
    }
    no_rate = [id for id in ids if id not in full]
    no_stride = [id for id, own in full.items() if not own.stride]
    lines = [
        f"{place}: no {what} for {len(missing)} of {len(ids)} videos: "
        f"{', '.join(missing[:_SHOWN])}{', ...' if len(missing) > _SHOWN else ''}; {fix}"
        for what, missing, fix in (
            ("frame rate", no_rate, _FPS_FIX),
            ("stride", no_stride, "add it there, or pass --stride for these videos"),
        )
        if missing
    ]
    return {id: own for id, own in full.items() if own.stride}, lines


def stated_frames(entry: Mapping[str, Any]) -> Frames | None:
    """What an annotation file says of a video: its frame rate, however spelled, stride, window."""
    fps = positive(_rate(entry))
    if fps is None:
        return None
    stride, window = (positive(entry.get(name)) or 0.0 for name in ("stride", "window"))
    return Frames(fps=fps, stride=stride, window=window)


def positive(value: Any) -> float | None:
    """A positive number, also as text and as the ratio "30000/1001"; else None."""
    if isinstance(value, bool):
        return None
    try:
        found = float(Fraction(value)) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return found if 0 < found < np.inf else None


def rate_source(text: str) -> RateSource:
    """The value of a flag: json, a positive number, or a CSV.

    Raises:
        ValueError: it is none of them.
    """
    if text == "json":
        return "json"
    if (number := positive(text)) is not None:
        return number
    if Path(text).suffix or Path(text).is_file():
        try:
            float(text)
        except ValueError:
            return Path(text)
    raise ValueError(f"invalid value {text!r}: allowed are json, a positive number or a CSV file")


def own_grid(id: str, grid: Grid | None, shared: Grid | None) -> Grid:
    """The grid of a video in a store whose videos share `shared`, or have each its own (None).

    Raises:
        DataError: there is none, it is not the shared one, or it is impossible.
    """
    found = grid or shared
    if found is None or shared not in (None, found):
        raise DataError(
            f"video {id}: grid {grid}; a store with a shared grid ({shared}) accepts no other "
            "grid, and a store without one needs a grid for each video"
        )
    if not (0 < found.stride_s < np.inf and np.isfinite(found.offset_s)):
        raise DataError(f"video {id}: {found}; the stride must be positive and the offset finite")
    return found


def _rate(entry: Mapping[str, Any]) -> Any:
    spelled = {"".join(c for c in str(key).lower() if c.isalpha()): v for key, v in entry.items()}
    return next((spelled[name] for name in _SPELLINGS if name in spelled), None)


def _read(path: Path, same: Callable[[str], str | None]) -> dict[str, Frames]:
    found: dict[str, Frames] = {}
    for line, row in _rows(path):
        id = same(row["video"])
        if id is None:
            continue
        place = f"{path}:{line}: video {row['video']}"
        frames = Frames(
            fps=_number(place, "fps", row),
            stride=_number(place, "stride", row) if row["stride"] else 0.0,
            window=_number(place, "window", row) if row["window"] else 0.0,
        )
        if found.setdefault(id, frames) != frames:
            raise DataError(f"{place}: an earlier line has other values; keep one line per video")
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, {video, fps, stride, window}) of a CSV; a value that is not given is empty."""
    columns, rows = read_csv(path)
    if missing := {"video", "fps"} - set(columns):
        raise DataError(
            f"{path}: no column {', '.join(sorted(missing))} in the first line; required are "
            "video and fps; optional are stride and window"
        )
    for line, row in rows:
        yield line, {name: row.get(name, "") for name in ("video", "fps", "stride", "window")}


def _number(place: str, name: str, row: Mapping[str, str]) -> float:
    found = positive(row[name])
    if found is None:
        raise DataError(f"{place}: {name} {row[name]!r}; must be a positive number")
    return found
