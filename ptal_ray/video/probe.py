"""Frame rate, length and time stamps of a video file, read without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptal_ray.errors import ConfigError, DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

READ = 0.9  # fraction of the length in a file's header that the file must have
_HEADED = ("mov", "matroska", "avi", "flv")  # formats with the length in the header
_SLACK_S = 0.5  # allowed difference for a short file
_MICROSECONDS = 1e6


@dataclass(frozen=True, kw_only=True)
class Video:
    """The properties of a video that are known before decoding.

    Args:
        path: the file.
        frames: number of frames.
        fps: frames per second; the mean if the rate varies.
        variable: whether the time from frame to frame varies.
        start_s: first time stamp of the file, of picture or sound; all other times are relative to
            it.
        last_s: start of the last frame, in seconds from the start.
        duration_s: end of the last frame, in seconds from the start.
    """

    path: Path
    frames: int
    fps: float
    variable: bool
    start_s: float
    last_s: float
    duration_s: float


def probe(path: Path) -> Video:
    """Read the time stamps of all frames of a video.

    Raises:
        DataError: it is unreadable, cut off, or has no picture.
    """
    with opened(path) as (container, stream):
        stamps = _read_stamps(container, stream)
        if not stamps.shown_s:
            raise DataError(f"{path}: a video without frames; record it again or remove it")
        _check_length(path, container, stamps.end_s)
        times_s = np.sort(np.asarray(stamps.shown_s))
        declared = float(stream.average_rate or 0.0)
        fps, variable = _rate(times_s, declared, float(stream.time_base or 0.0))
        started = container.start_time
        first_s = float(times_s[0])
        start_s = min(first_s, started / _MICROSECONDS) if started is not None else first_s
    last_s = float(times_s[-1])
    shown_s = stamps.last_shown_s if variable and stamps.last_shown_s else 1 / fps
    return Video(
        path=path,
        frames=len(times_s),
        fps=fps,
        variable=variable,
        start_s=start_s,
        last_s=last_s - start_s,
        duration_s=last_s + shown_s - start_s,
    )


def check_installed() -> None:
    """Check that videos can be read.

    Raises:
        ConfigError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"reading videos needs PyAV ({error}); pip install -c constraints.txt 'ptal-ray[video]'"
        ) from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its picture stream, in a `with` block.

    Raises:
        DataError: the file is unreadable (also if found in this block) or has no picture.
    """
    check_installed()
    import av

    try:
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
                raise DataError(f"{path}: no video stream in this file, only {kinds}; remove it")
            yield container, streams[0]
    except av.FFmpegError as error:
        raise DataError(
            f"{path}: unreadable video ({error.strerror}); convert it, copy it again or remove it"
        ) from error


@dataclass
class _Stamps:
    """Time stamps of frames, duration of the last frame, and end of the file, in seconds."""

    shown_s: list[float] = field(default_factory=list)
    last_shown_s: float = 0.0
    end_s: float = 0.0


def _read_stamps(container: InputContainer, stream: VideoStream) -> _Stamps:
    found = _Stamps()
    fallback = 1 / float(stream.guessed_rate or 25)
    latest = -float("inf")
    for packet in container.demux():
        if not packet.size:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        base = float(packet.time_base)
        mine = packet.stream.index == stream.index
        time_s = stamp * base if stamp is not None else len(found.shown_s) * fallback
        length_s = (packet.duration or 0) * base
        found.end_s = max(found.end_s, time_s + length_s)
        if not mine or packet.is_discard:
            continue
        found.shown_s.append(time_s)
        if time_s > latest:
            latest, found.last_shown_s = time_s, length_s
    return found


def _check_length(path: Path, container: InputContainer, end_s: float) -> None:
    """Check that a file is not shorter than the length in its header."""
    if not container.duration or not container.format.name.startswith(_HEADED):
        return
    told_s = container.duration / _MICROSECONDS
    if end_s - (container.start_time or 0) / _MICROSECONDS + _SLACK_S < READ * told_s:
        raise DataError(
            f"{path}: ends at {end_s:.2f} of {told_s:.2f} s; it was cut off: copy it again"
        )


def _rate(times_s: np.ndarray, declared: float, tick_s: float) -> tuple[float, bool]:
    """(frames per second, whether the rate varies) of sorted time stamps."""
    if len(times_s) == 1 or times_s[-1] == times_s[0]:
        return declared or 1.0, False
    mean_s = float(times_s[-1] - times_s[0]) / (len(times_s) - 1)
    slack_s = max(1.5 * tick_s, 0.05 * mean_s)
    variable = bool((np.abs(np.diff(times_s) - mean_s) > slack_s).any())
    near = abs(declared * mean_s - 1) < 0.01
    return (declared if near and not variable else 1 / mean_s), variable
