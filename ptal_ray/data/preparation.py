"""How the features of a store were made from user files, so that new files can be treated alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.feature_file import FeatureFile
from ptal_ray.data.normalize import Scale
from ptal_ray.data.readers.signals import windowed
from ptal_ray.video.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What was done, in this order.

    Args:
        extraction: settings of the `python -m ptal_ray.extract` that made the features of videos;
            empty where something else did.
        window, stride: of window features of recordings, in samples; 0 if the files contain
            features.
        scale: mean and standard deviation of the z-scores.
    """

    extraction: Mapping[str, Any] = field(default_factory=dict)
    window: int = 0
    stride: int = 0
    scale: Scale = Scale()

    @property
    def of_recordings(self) -> bool:
        """Whether the files hold raw channels of sensors, (samples, channels)."""
        return self.window > 0

    def opened(self, file: FeatureFile) -> FeatureFile:
        """The features (T, D), ready for a model, of a file as users have it."""
        made = windowed(file, self.window, self.stride) if self.of_recordings else file
        return FeatureFile(
            file=made.file, shape=made.shape, read=lambda: self.scale(np.asarray(made.read()))
        )

    def plain(self) -> dict[str, Any]:
        """JSON values, without empty ones."""
        mean, spread = self.scale.mean, self.scale.spread
        found = {
            "extraction": dict(self.extraction),
            "window": self.window,
            "stride": self.stride,
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
            window=int(plain.get("window", 0)),
            stride=int(plain.get("stride", 0)),
            scale=Scale(mean=mean, spread=spread),
        )


UNKNOWN = Preparation()  # or nothing was done


def recorded_extraction(folder: Path) -> dict[str, Any]:
    """The settings of the `python -m ptal_ray.extract` that wrote a folder; empty for another one.

    Raises:
        DataError: they cannot be read.
    """
    return Manifest(folder).settings()
