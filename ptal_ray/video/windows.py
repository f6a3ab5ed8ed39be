"""Sliding windows over frames, and their means."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ptal_ray.errors import ConfigError

Item = TypeVar("Item")
Rows = np.ndarray[Any, np.dtype[np.float32]]  # (n, D)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stride or a window, in frames or in seconds."""

    value: float
    in_seconds: bool

    @staticmethod
    def parse(flag: str, text: str) -> Span:
        """The span of "16" (frames) or "0.5s" (seconds).

        Raises:
            ConfigError: it has another form; frames are integers.
        """
        in_seconds = text.endswith("s")
        try:
            value = float(text.removesuffix("s"))
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf or not (in_seconds or value.is_integer()):
            raise ConfigError(
                f"{flag} {text}: must be a whole number of frames (16) or seconds (0.5s)"
            )
        return Span(value=value, in_seconds=in_seconds)

    def frames(self, fps: float) -> float:
        """Frames of this span at `fps`."""
        return self.value * fps if self.in_seconds else self.value

    def __str__(self) -> str:
        return f"{self.value:g}{'s' if self.in_seconds else ''}"


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in frames of one video; window k starts at frame round(k * stride).

    Args:
        stride: frames from window to window, may be fractional.
        length: frames of a window.
    """

    stride: float
    length: int

    def start(self, k: int) -> int:
        """First frame of window k."""
        return math.floor(k * self.stride + 0.5)

    def over(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """The items of one window after the other; at most one window is in memory.

        If items remain after the last full window, a shorter one follows, so that every item is in
        a window unless the stride is longer than the window.
        """
        held: deque[Item] = deque()
        k = count = 0
        for item in items:
            if count >= self.start(k):
                held.append(item)
            count += 1
            while len(held) == self.length:
                yield list(held)
                k += 1
                gone = self.start(k) - self.start(k - 1)
                for _ in range(min(gone, len(held))):
                    held.popleft()
        covered = self.start(k - 1) + self.length if k else 0
        if held and covered < count:
            yield list(held)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last one may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def means(rows: Iterable[Rows], windows: Windows) -> Iterator[Rows]:
    """The mean of the rows of every window.

    Args:
        rows: blocks (n, D), one row per frame.
        windows: over those rows.

    Yields:
        Blocks (1, D).
    """
    flat = (row for block in rows for row in block)
    for window in windows.over(flat):
        yield np.mean(window, axis=0, keepdims=True)


def spread(frames: Sequence[Item], windows: Windows, number: int) -> list[Item]:
    """`number` evenly spaced frames of a window; a short last window repeats its last frame."""
    picks = ((2 * k + 1) * windows.length // (2 * number) for k in range(number))
    return [frames[min(pick, len(frames) - 1)] for pick in picks]
