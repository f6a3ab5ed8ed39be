"""How the features of a store were made from user files, so that new files can be treated alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.features.feature_file import FeatureFile, sliced, turned
from ptal_ray.data.features.normalize import Scale
from ptal_ray.data.features.windows import windowed
from ptal_ray.video.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What was done, in this order.

    Args:
        extraction: settings of the `python -m ptal_ray.extract` that made the features of videos;
            empty where something else did.
        transposed: whether the files hold (D, T).
        every: N takes every N-th snippet, from the first on.
        window, stride: of window features of recordings, in samples; 0 if the files contain
            features.
        channels: the names of the columns of recordings; () if unknown.
        scale: mean and standard deviation of the z-scores.
    """

    extraction: Mapping[str, Any] = field(default_factory=dict)
    transposed: bool = False
    every: int = 1
    window: int = 0
    stride: int = 0
    channels: tuple[str, ...] = ()
    scale: Scale = Scale()

    @property
    def of_recordings(self) -> bool:
        """Whether the files hold raw channels of sensors, (samples, channels)."""
        return self.window > 0

    def opened(self, file: FeatureFile) -> FeatureFile:
        """The features (T, D), ready for a model, of a file as users have it."""
        made = turned(file) if self.transposed else file
        made = sliced(made, self.every) if self.every > 1 else made
        if self.of_recordings:
            made = windowed(made, self.window, self.stride, self.channels)
        return FeatureFile(
            file=made.file, shape=made.shape, read=lambda: self.scale(np.asarray(made.read()))
        )

    def plain(self) -> dict[str, Any]:
        """JSON values, without empty ones."""
        mean, spread = self.scale.mean, self.scale.spread
        found = {
            "extraction": dict(self.extraction),
            "transposed": self.transposed,
            "every": self.every if self.every > 1 else 0,
            "window": self.window,
            "stride": self.stride,
            "channels": list(self.channels),
            "mean": [] if mean is None else mean.tolist(),
            "spread": [] if spread is None else spread.tolist(),
        }
        return {name: value for name, value in found.items() if value}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Preparation:
        """The inverse of `plain`.

        Raises:
            TypeError: the values are not from `plain`.
            ValueError: likewise.
        """
        mean, spread = (
            np.asarray(plain[name], np.float64) if name in plain else None
            for name in ("mean", "spread")
        )
        return Preparation(
            extraction=dict(plain.get("extraction", {})),
            transposed=bool(plain.get("transposed", False)),
            every=int(plain.get("every", 1)),
            window=int(plain.get("window", 0)),
            stride=int(plain.get("stride", 0)),
            channels=tuple(plain.get("channels", ())),
            scale=Scale(mean=mean, spread=spread),
        )


UNKNOWN = Preparation()  # or nothing was done


def recorded_extraction(folder: Path) -> dict[str, Any]:
    """The settings of the `python -m ptal_ray.extract` that wrote a folder; empty for another one.

    Raises:
        DataError: they cannot be read.
    """
    return Manifest(folder).settings()
