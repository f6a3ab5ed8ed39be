"""Mean and spread of the features of a training split, and z-scores by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.checks import feature_problems
from ptal_ray.data.precision import Channels
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


def training_scale(videos: Iterable[tuple[str, FloatArray]]) -> Scale:
    """The scale of all snippets of `videos`, (id, (T, D)) each, read one at a time.

    A constant column keeps the spread 1.

    Raises:
        DataError: features that are not finite, or of another D, which would spoil all others.
    """
    channels = Channels()
    for id, features in videos:
        for problem in feature_problems(id, features, channels.count):
            raise DataError(problem)
        channels.add(features)
    mean, spread = channels.mean, channels.deviation
    return Scale(mean=mean, spread=np.where(spread > LEAST * np.abs(mean) + 1e-12, spread, 1.0))
