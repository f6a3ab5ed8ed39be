"""Mean and spread of the features of a training split, and z-scores by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.checks import feature_problems, width_problems
from ptal_ray.data.features.precision import Channels, VideoSums, channel_sums
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError

LEAST = 1e-6  # spread below this share of the mean's size is that of a constant column


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What is taken from features, (D,), and what they are divided by; None leaves them alone."""

    mean: NDArray[np.float64] | None = None
    spread: NDArray[np.float64] | None = None

    def __call__(self, features: FloatArray) -> FloatArray:
        """(T, D) features, scaled, as float32."""
        if self.mean is None or self.spread is None:
            return features
        return ((features - self.mean) / self.spread).astype(np.float32)


def scale_sums(id: str, features: FloatArray) -> VideoSums:
    """The sums of a training video for `training_scale`; depends on no other video.

    Raises:
        DataError: features (T, D) that are not finite, which would spoil those of all others.
    """
    for problem in feature_problems(id, features, 0):
        raise DataError(problem)
    return channel_sums(features, ())


def training_scale(videos: Iterable[tuple[str, VideoSums]]) -> Scale:
    """The scale of all snippets of `videos`, (id, sums) each; its bits depend on their order alone.

    A constant column keeps the spread 1.

    Raises:
        DataError: features of another D than those before.
    """
    channels = Channels()
    for id, sums in videos:
        for problem in width_problems(id, (sums.snippets, len(sums.origin)), channels.count):
            raise DataError(problem)
        channels.take(sums)
    mean, spread = channels.mean, channels.deviation
    return Scale(mean=mean, spread=np.where(spread > LEAST * np.abs(mean) + 1e-12, spread, 1.0))
