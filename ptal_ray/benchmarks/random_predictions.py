"""Predictions of benchmark size, for timing evaluation and suppression."""

from __future__ import annotations

import numpy as np

from ptal_ray.data.types import Segments

Workload = tuple[dict[str, Segments], dict[str, Segments], int, tuple[float, ...]]


def anet_like(seed: int) -> Workload:
    """4,926 videos, 492,600 predictions, 200 classes, 10 thresholds, as in ActivityNet 1.3."""
    return _workload(seed, 4926, 1.54, 100, 200, 120.0, tuple(p / 100 for p in range(50, 100, 5)))


def thumos_like(seed: int) -> Workload:
    """210 videos, 40,110 predictions, 20 classes, 7 thresholds, as in THUMOS14."""
    return _workload(seed, 210, 15.8, 191, 20, 200.0, tuple(p / 100 for p in range(10, 80, 10)))


def crowded(seed: int) -> Segments:
    """2,000 segments in each of 20 classes of one video of 200 s, before suppression."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 200, 40_000)
    return Segments(
        start_s=start,
        end_s=start + rng.exponential(5, 40_000) + 0.1,
        label=np.repeat(np.arange(20), 2000),
        score=rng.random(40_000),
    )


def _workload(
    seed: int,
    videos: int,
    instances: float,
    predictions: int,
    classes: int,
    duration_s: float,
    tiou: tuple[float, ...],
) -> Workload:
    """Detections jittered around instances; a fifth are elsewhere or have another class."""
    rng = np.random.default_rng(seed)
    truth, found = {}, {}
    for index in range(videos):
        number = max(1, int(rng.poisson(instances)))
        length = np.minimum(rng.exponential(duration_s / (2 * number), number) + 0.5, duration_s)
        start = rng.uniform(0, duration_s - length)
        label = np.repeat(rng.integers(0, classes), number)
        near = rng.integers(0, number, predictions)
        shift = rng.normal(0, 0.25, (2, predictions)) * length[near]
        guess = np.where(rng.random(predictions) < 0.8, label[near], rng.integers(0, classes))
        first, last = start[near] + shift[0], start[near] + length[near] + shift[1]
        truth[f"v{index}"] = Segments(
            start_s=start, end_s=start + length, label=label, score=np.ones(number)
        )
        found[f"v{index}"] = Segments(
            start_s=np.minimum(first, last),
            end_s=np.maximum(first, last) + 0.01,
            label=guess,
            score=rng.random(predictions),
        )
    return truth, found, classes, tiou
