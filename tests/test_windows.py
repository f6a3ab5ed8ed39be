from __future__ import annotations

import numpy as np
import pytest

from ptal_ray.data.features import windows
from ptal_ray.data.features.normalize import Scale, scale_sums, training_scale
from ptal_ray.data.features.windows import window_features, window_shape
from ptal_ray.data.readers import watch


def noise(samples, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, channels))


def one_window(window, bins):
    """The features of a window (S, C), written out."""
    parts = [f(window, axis=0) for f in (np.mean, np.std, np.min, np.max)]
    parts += [np.abs(np.diff(window, axis=0)).mean(axis=0), window[-1] - window[0]]
    turns = np.arange(len(window)) / len(window)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(1, bins + 1), turns))
    parts.append(np.abs(waves @ (window - window.mean(axis=0))).T.reshape(-1))
    upper = np.triu_indices(window.shape[1], 1)
    if len(upper[0]):
        parts.append(np.corrcoef(window.T)[upper])
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("channels", "window", "stride", "bins"),
    [(6, 50, 25, 6), (1, 50, 25, 6), (3, 128, 64, 6), (2, 8, 8, 4), (2, 5, 3, 2), (1, 2, 1, 1)],
)
def test_any_number_of_channels_and_any_window(channels, window, stride, bins):
    signal = noise(300, channels)
    found = window_features(signal, window, stride)
    assert found.shape == window_shape(300, channels, window, stride)
    for t in (0, 1, len(found) - 1):
        expected = one_window(signal[t * stride : t * stride + window], bins)
        np.testing.assert_allclose(found[t], expected, atol=1e-9)


def test_a_recording_shorter_than_a_window_has_no_snippet():
    assert window_shape(49, 6, 50, 25) == (0, 87)
    assert window_shape(50, 6, 50, 25) == (1, 87)


def test_long_recordings_are_worked_off_in_blocks(monkeypatch):
    signal = noise(500, 3)
    whole = window_features(signal, 20, 7)
    monkeypatch.setattr(windows, "_BLOCK", 9)
    np.testing.assert_array_equal(window_features(signal, 20, 7), whole)


def test_watch_keeps_these_features_with_z_scores_of_the_session():
    """To the last bit, else the content hash of the store and all caches by it would change."""
    signal = noise(400, 6)
    view = np.lib.stride_tricks.sliding_window_view(signal, 50, axis=0)[::25]
    centred = view - view.mean(axis=2, keepdims=True)
    spread = view.std(axis=2)
    covariance = np.einsum("tcw,tdw->tcd", centred, centred) / 50
    scale = np.maximum(spread[:, :, None] * spread[:, None, :], 1e-9)
    upper = np.triu_indices(6, 1)
    columns = [
        view.mean(axis=2), spread, view.min(axis=2), view.max(axis=2),
        np.abs(np.diff(view, axis=2)).mean(axis=2), view[:, :, -1] - view[:, :, 0],
        np.abs(np.fft.rfft(centred, axis=2))[:, :, 1:7].reshape(len(view), -1),
        (covariance / scale)[:, upper[0], upper[1]],
    ]  # fmt: skip
    plain = np.concatenate(columns, axis=1)
    expected = (plain - plain.mean(axis=0)) / np.maximum(plain.std(axis=0), 1e-9)
    np.testing.assert_array_equal(watch.snippet_features(signal), expected)


def test_the_scale_of_many_videos_is_that_of_all_their_snippets():
    videos = [noise(length, 4, seed=length) * 5 + 1000 for length in (7, 1, 200)]
    scale = training_scale(("v", scale_sums("v", video.astype(np.float32))) for video in videos)
    every = np.concatenate(videos)
    np.testing.assert_allclose(scale.mean, every.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale.spread, every.std(axis=0), rtol=1e-5)
    scaled = np.concatenate([scale(video) for video in videos])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)


def test_a_constant_column_becomes_zero_and_no_scale_changes_nothing():
    video = np.concatenate([np.full((9, 1), 0.1, np.float32), noise(9, 1)], axis=1)
    scale = training_scale([(id, scale_sums(id, video)) for id in "vw"])
    assert scale.spread[0] == 1 and np.isfinite(scale(video)).all()
    np.testing.assert_allclose(scale(video)[:, 0], 0, atol=1e-6)
    assert Scale()(video) is video
