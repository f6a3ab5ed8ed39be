"""Decodes the frames of a video at a constant rate, upright and in one size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from ptal_ray.errors import DataError
from ptal_ray.video.probe import READ, Video, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Image = np.ndarray[Any, np.dtype[np.uint8]]  # (height, width, 3), RGB


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of the images of an encoder.

    Args:
        height: pixels.
        width: pixels.
        crop: keep the aspect ratio and crop both ends; else stretch.
        margin: pixels that are also cropped from the shorter side.
    """

    height: int
    width: int
    crop: bool = True
    margin: int = 0


def steps(video: Video, fps: float) -> int:
    """Number of images that `images` yields."""
    return max(1, round(video.duration_s * fps))


def images(video: Video, fps: float, size: Size, threads: int = 0) -> Iterator[Image]:
    """Decode a video; at most one decoded frame is in memory.

    Image j is the frame at (j + 0.5) / fps seconds. At the video's own constant rate these are its
    frames; at another or a variable rate, frames are repeated or skipped.

    Args:
        video: result of `probe`.
        fps: images per second.
        size: of an image.
        threads: of the decoder; 0 uses all cores.

    Raises:
        DataError: it cannot be decoded to its end.
    """
    total, given = steps(video, fps), 0
    shown: VideoFrame | None = None
    time_s = video.start_s
    with opened(video.path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        aspect = stream.sample_aspect_ratio or Fraction(1)
        for time_s, frame in _decoded(video, container, stream):
            due = min(total, math.ceil((time_s - video.start_s) * fps - 0.5))
            if due > given:
                yield from repeat(upright(shown or frame, size, aspect), due - given)
                given = due
            shown = frame
    if shown is None or time_s - video.start_s < READ * video.last_s:
        raise DataError(
            f"{video.path}: cannot be decoded after {time_s - video.start_s:.2f} of "
            f"{video.duration_s:.2f} s; convert it, copy it again or remove it"
        )
    yield from repeat(upright(shown, size, aspect), total - given)


def _decoded(
    video: Video, container: InputContainer, stream: VideoStream
) -> Iterator[tuple[float, VideoFrame]]:
    """(time stamp in seconds, frame); frames without a time stamp follow at the mean rate."""
    for index, frame in enumerate(container.decode(stream)):
        time_s = video.start_s + index / video.fps if frame.pts is None else frame.time
        yield time_s, frame


def upright(frame: VideoFrame, size: Size, aspect: Fraction) -> Image:
    """A frame as displayed: rotated as in its file, with square pixels, and of size `size`.

    Args:
        frame: as decoded.
        size: of the image.
        aspect: width / height of a pixel.
    """
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    high, wide = (size.height, size.width) if turns % 2 == 0 else (size.width, size.height)
    height, width = high, wide
    if size.crop:
        seen = float(frame.width * aspect)
        scale = max((high + size.margin) / frame.height, (wide + size.margin) / seen)
        height, width = max(high, round(frame.height * scale)), max(wide, round(seen * scale))
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    top, left = (height - high) // 2, (width - wide) // 2
    image = scaled.to_ndarray()[top : top + high, left : left + wide]
    return np.ascontiguousarray(np.rot90(image, turns)).astype(np.uint8, copy=False)
