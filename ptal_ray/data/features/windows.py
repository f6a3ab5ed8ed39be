"""Features of windows of sensor channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError

BINS = 6  # lowest frequencies of a window, but for the mean
_BLOCK = 4096  # windows at a time, which bounds the memory

Floats = NDArray[np.float64]


def window_shape(samples: int, channels: int, window: int, stride: int) -> tuple[int, int]:
    """(T, D) of the features of a recording; T is 0 where it is shorter than a window."""
    return (
        max(0, (samples - window) // stride + 1),
        channels * (6 + min(BINS, window // 2)) + channels * (channels - 1) // 2,
    )


def channels_of(dim: int, window: int) -> int:
    """How many channels give `dim` features of windows of `window` samples; 0 where none do."""
    counts = range(1, dim + 1)
    return next((c for c in counts if window_shape(window, c, window, 1)[1] == dim), 0)


def window_features(signal: Floats, window: int, stride: int) -> Floats:
    """Statistics of each window.

    Args:
        signal: (S, C) samples, S >= window.
        window: samples that a snippet sees, at least 2.
        stride: samples from snippet to snippet.

    Returns:
        (T, D): per channel mean, std, min, max, mean |difference| and net change, per channel the
        magnitudes at 1 to 6 periods a window (fewer in windows below 12 samples), then the
        correlations between channels.
    """
    windows = sliding_window_view(signal, window, axis=0)[::stride]  # (T, C, window)
    blocks = [_statistics(windows[k : k + _BLOCK]) for k in range(0, len(windows), _BLOCK)]
    return np.concatenate(blocks)


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


def _statistics(windows: Floats) -> Floats:
    """(T, C, window) -> (T, D)."""
    centred = windows - windows.mean(axis=2, keepdims=True)
    spread = windows.std(axis=2)
    spectrum = np.abs(np.fft.rfft(centred, axis=2))[:, :, 1 : BINS + 1]
    covariance = np.einsum("tcw,tdw->tcd", centred, centred) / windows.shape[2]
    scale = np.maximum(spread[:, :, None] * spread[:, None, :], 1e-9)
    upper = np.triu_indices(windows.shape[1], 1)
    columns = [
        windows.mean(axis=2), spread, windows.min(axis=2), windows.max(axis=2),
        np.abs(np.diff(windows, axis=2)).mean(axis=2), windows[:, :, -1] - windows[:, :, 0],
        spectrum.reshape(len(windows), -1), (covariance / scale)[:, upper[0], upper[1]],
    ]  # fmt: skip
    return np.concatenate(columns, axis=1)
