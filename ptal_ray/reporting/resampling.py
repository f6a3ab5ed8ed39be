"""Confidence intervals of mAP over seeds and videos, and paired differences, by the bootstrap.

Videos are drawn with replacement, the same ones for all runs of a data set, and the seeds of each
configuration beside them. A video that is drawn twice counts twice, in instances and in detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ptal_ray.ops.metrics import Matches
from ptal_ray.study.conclusion import CONFIDENCE, Interval

Floats = NDArray[np.float64]
MOST, LEAST = 2_000, 40  # resamples
_WORK = 120_000_000  # detections times thresholds times resamples, of all runs


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The mAP of runs on B resamples of the test videos.

    Args:
        maps: (B,) by name of configuration, the mean over seeds that were drawn too.
        plain: mean over the seeds on the videos as they are.
        varied: whether there are several videos or seeds to draw from; otherwise bounds are NaN.
    """

    maps: dict[str, Floats]
    plain: dict[str, float]
    varied: bool = True

    def interval(self, name: str) -> Interval:
        """Of the mean mAP of a configuration."""
        return self._interval(self.plain[name], self.maps[name])

    def difference(self, one: str, other: str) -> tuple[Interval, float]:
        """One minus other on the same videos, and the two-sided p-value that they are equal.

        If all resamples lie on one side of 0, their number alone bounds the p-value from below. It
        is then that of a normal distribution with their standard deviation, where that is smaller.
        """
        values = self.maps[one] - self.maps[other]
        found = self._interval(self.plain[one] - self.plain[other], values)
        if not self.varied:
            return found, 1.0
        beyond = min(np.sum(values <= 0), np.sum(values >= 0))
        p = 2 * float(beyond + 1) / (len(values) + 1)
        if beyond == 0 and (spread := float(values.std(ddof=1))) > 1e-9:
            p = min(p, 2 * float(ndtr(-abs(found.mean) / spread)))
        return found, min(1.0, p)

    def _interval(self, mean: float, values: Floats) -> Interval:
        if not self.varied:
            return Interval(mean=mean, low=np.nan, high=np.nan)
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(values, [tail, 100 - tail])
        return Interval(mean=mean, low=float(low), high=float(high))


def resample(
    runs: Mapping[str, Sequence[Matches]], averaged: Sequence[int], seed: int = 0
) -> Resampled:
    """Draws videos and seeds.

    Args:
        runs: the seeds of each configuration, all on the same videos.
        averaged: columns of thresholds that mAP averages.
        seed: of the draws.
    """
    every = [run for seeds in runs.values() for run in seeds]
    work = max(1, sum(run.hit[:, list(averaged)].size for run in every))
    count = int(np.clip(_WORK // work, LEAST, MOST))
    rng = np.random.default_rng(seed)
    videos = max(len(run.videos) for run in every)
    weights = rng.multinomial(videos, np.full(videos, 1 / videos), size=count).astype(float)
    whole = np.ones((1, videos))
    maps, plain = {}, {}
    for name, seeds in runs.items():
        drawn = rng.integers(0, len(seeds), (count, len(seeds)))
        each = np.stack([weighted_map(run, weights, averaged) for run in seeds])  # (S, B)
        maps[name] = each[drawn, np.arange(count)[:, None]].mean(axis=1)
        plain[name] = float(np.mean([weighted_map(run, whole, averaged)[0] for run in seeds]))
    varied = videos > 1 or any(len(seeds) > 1 for seeds in runs.values())
    return Resampled(maps=maps, plain=plain, varied=varied)


def weighted_map(run: Matches, weights: Floats, averaged: Sequence[int]) -> Floats:
    """mAP with videos counted several times.

    Args:
        run: its detections and the instances.
        weights: (B, V) how often each video counts.
        averaged: columns of thresholds that are averaged.

    Returns:
        (B,) mean over the classes with an instance and over the thresholds.
    """
    weights = weights[:, : len(run.videos)]
    total = weights @ run.positives  # (B, C)
    precision = np.zeros_like(total)
    for label in np.flatnonzero(run.positives.any(axis=0)):
        rows = np.flatnonzero(run.label == label)
        own = weights[:, run.video[rows]]
        rank = np.cumsum(own, axis=1)
        for level in averaged:
            held = np.flatnonzero(run.hit[rows, level])
            precision[:, label] += _area(own[:, held], rank[:, held])
    with np.errstate(invalid="ignore", divide="ignore"):
        average = precision / len(averaged) / total
    has = total > 0
    mean: Floats = np.where(has, average, 0.0).sum(axis=1) / np.maximum(has.sum(axis=1), 1)
    return mean


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = most
    return corrected


def _area(weight: Floats, rank: Floats) -> Floats:
    """(B,) weighted sum of interpolated precision at the hits."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(rank > 0, np.cumsum(weight, axis=1) / rank, 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area: Floats = (envelope * weight).sum(axis=1)
    return area


def p_text(p: float) -> str:
    """A p-value as shown."""
    return f"p = {p:.3f}" if p >= 0.0005 else "p < 0.001"
