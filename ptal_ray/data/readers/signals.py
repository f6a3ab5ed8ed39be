"""`signals`: raw channels of sensors, a .npy (S, channels) or a CSV for each recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptal_ray.data.feature_file import FeatureFile
from ptal_ray.data.groups import PERSON
from ptal_ray.data.readers.release import Given, Release, database, feature_file
from ptal_ray.data.types import FloatArray
from ptal_ray.data.windows import window_features, window_shape
from ptal_ray.errors import ConfigError, DataError


def read(given: Given) -> Release:
    """Window features of the recordings; stride and window count samples.

    Raises:
        ConfigError: rate, window or stride is missing or impossible.
        DataError: the annotations cannot be read.
    """
    if given.fps is None:
        raise ConfigError("pass --rate: samples per second of the recordings")
    window, stride = (_samples(n, getattr(given, n)) for n in ("window", "stride"))
    if window < 2:
        raise ConfigError(f"--window {window}: must be at least 2 samples")
    folder = given.folder("signals", "features", ".")
    annotations = given.file("annotations.json", "gt.json")
    content, videos = database(annotations)
    return Release(
        annotations=annotations,
        folder=folder,
        content=content,
        files={id: windowed(feature_file([folder], id, given), window, stride) for id in videos},
        fps=given.fps,
        stride=stride,
        window=window,
        points=given.points or given.inside("points*.csv"),
        of_recordings=True,
        group=PERSON if all(PERSON.search(id) for id in videos) else None,
    )


def windowed(signal: FeatureFile, window: int, stride: int) -> FeatureFile:
    """The features of the windows of a recording.

    Args:
        signal: (samples, channels).
        window: samples that a snippet sees.
        stride: samples from snippet to snippet.
    """

    def shape() -> tuple[int, ...]:
        """The shape of the features, from that of the signal."""
        found = signal.shape()
        if len(found) != 2 or not found[1]:
            raise DataError(
                f"{signal.file}: shape {found}; must be (samples, channels), one row per sample"
            )
        if found[0] < window:
            raise DataError(
                f"{signal.file}: {found[0]} samples are fewer than a window of {window}; choose a "
                "smaller --window, or leave the recording out (--exclude)"
            )
        return window_shape(*found, window, stride)

    def read() -> FloatArray:
        """The features of all windows."""
        shape()
        samples = np.asarray(signal.read(), np.float64)
        bad = np.argwhere(~np.isfinite(samples))
        if len(bad):
            raise DataError(
                f"{signal.file}: sample {bad[0][0]} of channel {bad[0][1]} is {samples[*bad[0]]}, "
                f"the first of {len(bad)}; samples must be finite: fill the gaps, or leave the "
                "recording out (--exclude)"
            )
        return window_features(samples, window, stride).astype(np.float32)

    return FeatureFile(file=Path(signal.file), shape=shape, read=read)


def _samples(name: str, value: float) -> int:
    if not value or value != int(value):
        raise ConfigError(f"--{name} {value:g}: must be a whole number of samples")
    return int(value)
