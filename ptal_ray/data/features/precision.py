"""The rounding error of features in the dtype of a store, per channel, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.features.half import LARGE, rounded_to
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError

LOSS = 0.01  # allowed rounding error (root of the mean square), in deviations of its channel
BLOCK = 1 << 16  # values worked on at once
NAMED = 5  # channels in a message
RESOLVED = 16.0  # steps of the source's type; a smaller deviation is noise of rounding

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class VideoSums:
    """The sums of one video for `Channels`; made by `channel_sums`.

    Args:
        snippets: T.
        origin: (D,) the first row; `mean` and `squares` are relative to it.
        mean, squares: (D,) mean, and sum of squares, of the rows minus the origin.
        error: (D,) sum of squares of the rounding error, for each dtype that rounds.
        step: relative precision of the dtype of the features; 0 for integers.
    """

    snippets: int
    origin: Floats
    mean: Floats
    squares: Floats
    error: Mapping[str, Floats]
    step: float


def channel_sums(features: FloatArray, dtypes: Sequence[str]) -> VideoSums:
    """The sums of a video, from its features alone.

    Args:
        features: (T, D), finite.
        dtypes: dtypes whose rounding error is measured.
    """
    snippets, origin = len(features), features[0].astype(np.float64)
    total, squares = np.zeros_like(origin), np.zeros_like(origin)
    types = [name for name in dtypes if _rounds(features.dtype, name)]
    lost = {name: np.zeros_like(origin) for name in types}
    if features.dtype == np.float32 and features.size >= LARGE:
        from ptal_ray.data.features.half_loops import add_sums  # slow to import

        error = lost.get("float16", np.zeros_like(origin))
        add_sums(np.ascontiguousarray(features), origin, total, squares, error)
    else:
        _add_sums(features, origin, total, squares, lost)
    return VideoSums(
        snippets=snippets, origin=origin, mean=total / snippets, squares=squares, error=lost,
        step=float(np.finfo(features.dtype).eps) if features.dtype.kind == "f" else 0.0,
    )  # fmt: skip


def _add_sums(
    features: FloatArray, origin: Floats, total: Floats, squares: Floats, lost: Mapping[str, Floats]
) -> None:
    """As `half_loops.add_sums`, for any type and for several that round."""
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(features):
            exact = block.astype(np.float64)
            for name, own in lost.items():
                error = exact - block.astype(name)
                own += np.einsum("td,td->d", error, error)
            exact -= origin  # keeps the digits of channels with an offset
            total += exact.sum(axis=0)
            squares += np.einsum("td,td->d", exact, exact)


class Channels:
    """Running statistics of the channels of a data set; holds a few numbers a channel.

    Args:
        dtypes: "float16", "float32": types whose loss is measured.
    """

    def __init__(self, *dtypes: str) -> None:
        self._dtypes = dtypes
        self._snippets = 0
        self._step = 0.0  # of the coarsest type of the source, relative
        self._first = self._mean = self._inside = self._among = np.zeros(0)

    def add(self, features: FloatArray) -> None:
        """Takes in the next video: (T, D), finite, the same D in all."""
        self.take(channel_sums(features, self._dtypes))

    def take(self, video: VideoSums) -> None:
        """Takes in the sums of the next video."""
        if not self._snippets:
            self._start(video.origin)
        with np.errstate(over="ignore", invalid="ignore"):
            for name, error in video.error.items():
                self._error[name] += error
            self._combine(video.origin, video.mean, video.squares, video.snippets)
        self._step = max(self._step, video.step)

    @property
    def constant(self) -> NDArray[np.intp]:
        """Channels that have one value in the whole data set."""
        return np.flatnonzero(~self._changes)

    @property
    def zero(self) -> NDArray[np.intp]:
        """Channels that are 0 in the whole data set."""
        return np.flatnonzero(~self._changes & (self._first == 0))

    @property
    def count(self) -> int:
        """D; 0 before the first video."""
        return len(self._first)

    @property
    def mean(self) -> Floats:
        """(D,): of all snippets."""
        return self._first + self._mean

    @property
    def deviation(self) -> Floats:
        """(D,): standard deviation over all snippets."""
        return np.sqrt((self._inside + self._among) / max(self._snippets, 1))

    def lost(self, dtype: str) -> Floats:
        """(D,): root of the mean square of the rounding error, in deviations of the channel.

        The deviation inside the videos counts; where a channel is constant in each of them, that
        among the videos. A channel that has no deviation can lose nothing.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            finest = RESOLVED * self._step * np.abs(self.mean)
            inside = np.sqrt(self._inside / self._snippets)
            deviation = np.where(inside > finest, inside, self.deviation)
            error = np.sqrt(self._error[dtype] / self._snippets)
            share: Floats = np.where(deviation > finest, error / deviation, 0.0)
        share[~np.isfinite(self._error[dtype])] = np.inf
        return share

    def loss(self, dtype: str) -> str:
        """The channels whose rounding error exceeds LOSS, as part of a message; "" for none."""
        share = self.lost(dtype) if self._snippets else np.zeros(0)
        channels = np.flatnonzero(share > LOSS)
        if not len(channels):
            return ""
        worst = int(np.argmax(share))
        how = (
            "values overflow"
            if np.isinf(share[worst])
            else f"the rounding error is {_percent(share[worst])} of its standard deviation"
        )
        return (
            f"{dtype} is too imprecise for {len(channels)} of {len(share)} channels "
            f"({named(channels)}; worst {worst}: {how})"
        )

    def check(self, place: str) -> None:
        """Checks that the rounding error of every channel is at most LOSS.

        Raises:
            DataError: it is larger; the message names `place`, the channels and the error.
        """
        for dtype in self._dtypes:
            if loss := self.loss(dtype):
                raise DataError(
                    f"{place}: {loss}; subtract the mean of these channels and divide by their "
                    f"standard deviation{_or_float32(dtype)}"
                )

    def _start(self, row: Floats) -> None:
        self._first = row
        self._mean, self._inside, self._among = (np.zeros(len(row)) for _ in range(3))
        self._error = {name: np.zeros(len(row)) for name in self._dtypes}
        self._changes = np.zeros(len(row), np.bool_)

    def _combine(self, origin: Floats, mean: Floats, squares: Floats, snippets: int) -> None:
        """Joins a video's mean, from `origin` on, and squares to those of all before (Chan)."""
        self._changes |= (squares > 0) | (origin != self._first)
        self._inside += np.maximum(squares - snippets * mean**2, 0)
        before, self._snippets = self._snippets, self._snippets + snippets
        distance = origin - self._first + mean - self._mean
        self._among += distance**2 * (before * snippets / self._snippets)
        self._mean += distance * (snippets / self._snippets)


def rounded(id: str, features: FloatArray, dtype: str) -> FloatArray:
    """The features of a video as a store keeps them.

    Raises:
        DataError: a value is too large for `dtype`.
    """
    largest = max(float(features.max()), -float(features.min()))
    with np.errstate(over="ignore"):
        overflows = not np.isfinite(np.float64(largest).astype(dtype))  # rounding keeps the order
    if overflows:
        raise DataError(
            f"video {id}: value {largest:g} overflows {dtype}; scale the features"
            f"{_or_float32(dtype)}"
        )
    return rounded_to(features, dtype)


def named(channels: Sequence[int] | NDArray[np.intp]) -> str:
    """The first of some channels, and how many more there are."""
    more = f" and {len(channels) - NAMED} more" if len(channels) > NAMED else ""
    return ", ".join(str(c) for c in channels[:NAMED]) + more


def _or_float32(dtype: str) -> str:
    return ", or store them as float32 (--dtype float32)" if dtype == "float16" else ""


def _blocks(features: FloatArray) -> list[FloatArray]:
    rows = max(1, BLOCK // features.shape[1])
    return [features[at : at + rows] for at in range(0, len(features), rows)]


def _rounds(source: np.dtype[np.generic], target: str) -> bool:
    """Whether a value of `source` may change in `target`."""
    return not np.can_cast(source, target, casting="safe")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * min(share, 1e6):.0f} %"
