"""Features of windows of sensor channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError

BINS = 6  # lowest frequencies of a window, but for the mean
CLOCKS = {"time", "time_s", "timestamp", "timestamps", "seconds", "elapsed", "sample", "index"}
LEAST_CLOCK = 50  # samples
MOST_RISE = 3.0  # of a clock, in medians
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


def channel_names(signals: Iterable[FeatureFile]) -> tuple[str, ...]:
    """The header that most recordings have; () without any."""
    known = Counter(names for signal in signals if (names := signal.columns()))
    return known.most_common(1)[0][0] if known else ()


def windowed(
    signal: FeatureFile, window: int, stride: int, channels: tuple[str, ...] = ()
) -> FeatureFile:
    """The features of the windows of a recording.

    Args:
        signal: (samples, channels).
        window: samples that a snippet sees.
        stride: samples from snippet to snippet.
        channels: the names that a header must have; () if none are known.
    """

    def shape() -> tuple[int, ...]:
        """The shape of the features, from that of the signal."""
        found = signal.shape()
        if len(found) != 2 or not found[1]:
            raise DataError(
                f"{signal.file}: shape {found}; must be (samples, channels), one row per sample"
            )
        if found[0] < window:
            turned = found[0] < found[1]
            advice = (
                "transpose it if it holds (channels, samples), with --transpose in an import"
                if turned
                else "leave the recording out, or import all with shorter windows"
            )
            raise DataError(
                f"{signal.file}: shape {found}; {found[0]} samples are fewer than a window of "
                f"{window}; {advice}"
            )
        _check_names(signal, channels)
        return window_shape(*found, window, stride)

    def read() -> FloatArray:
        """The features of all windows."""
        shape()
        samples = np.asarray(signal.read(), np.float64)
        bad = np.argwhere(~np.isfinite(samples))
        if len(bad):
            sample, channel = bad[0]
            raise DataError(
                f"{signal.file}: sample {sample + 1}, channel {channel + 1} (counted from 1) is "
                f"{samples[sample, channel]}, the first of {len(bad)}; samples must be finite: "
                "fill the gaps, or leave the recording out"
            )
        _check_no_clock(signal, samples)
        return window_features(samples, window, stride).astype(np.float32)

    return FeatureFile(file=Path(signal.file), shape=shape, read=read)


def _check_names(signal: FeatureFile, channels: tuple[str, ...]) -> None:
    own = signal.columns()
    if clock := next((name for name in own if name.lower() in CLOCKS), None):
        raise DataError(
            f"{signal.file}: column {clock!r} counts time or samples and is no signal; remove it "
            "from all recordings"
        )
    if own and channels and own != channels:
        raise DataError(
            f"{signal.file}: columns {', '.join(own)}; the other recordings have "
            f"{', '.join(channels)}; give all the same columns in the same order"
        )


def _check_no_clock(signal: FeatureFile, samples: Floats) -> None:
    """Check that no channel rises from each sample to the next, by about the same amount."""
    if len(samples) < LEAST_CLOCK:
        return
    rises = np.diff(samples, axis=0)
    even = rises.max(axis=0) <= MOST_RISE * np.median(rises, axis=0)
    found = np.flatnonzero((rises.min(axis=0) > 0) & even)
    if len(found):
        raise DataError(
            f"{signal.file}: channel {found[0] + 1} (counted from 1) rises at every sample, from "
            f"{samples[0, found[0]]:g} to {samples[-1, found[0]]:g}: it counts time or samples and "
            "is no signal; remove it from all recordings"
        )


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
