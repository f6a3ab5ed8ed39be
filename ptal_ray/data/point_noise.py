"""Noise of simulated points: shifted, dropped, or of a wrong class."""

from __future__ import annotations

import argparse
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

from ptal_ray.data.points import simulate_points, sorted_points
from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PointNoise:
    """The noise of simulated points, applied in this order.

    Args:
        dropout: probability that a point is dropped.
        jitter_s: standard deviation of a Gaussian shift of each point, seconds.
        label_noise: probability that a point gets another class.

    Raises:
        ConfigError: a value is out of range.
    """

    dropout: float = 0.0
    jitter_s: float = 0.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter_s < math.inf:
            raise ConfigError(f"jitter {self.jitter_s:g}: allowed are 0 or more seconds")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout:g}: allowed is a fraction in [0, 1)")
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(f"label_noise {self.label_noise:g}: allowed is a fraction in [0, 1]")

    @property
    def note(self) -> str:
        """For the note of a store; "" without noise."""
        parts = {
            f"dropout {self.dropout:g}": self.dropout,
            f"jitter {self.jitter_s:g} s": self.jitter_s,
            f"label noise {self.label_noise:g}": self.label_noise,
        }
        return ", ".join(text for text, value in parts.items() if value)


def disturbed(
    points: Points, noise: PointNoise, rng: np.random.Generator, duration_s: float, classes: int
) -> Points:
    """Points with noise. Each kind of noise has its own random stream.

    Args:
        points: P points.
        noise: the noise to apply.
        rng: random generator.
        duration_s: of the video; shifted points are clipped to it.
        classes: number of classes; labels do not change if there is only one.

    Returns:
        At most P points, ascending.
    """
    by_kind = rng.spawn(3)
    kept = by_kind[0].random(len(points)) >= noise.dropout
    moved_s = noise.jitter_s * by_kind[1].standard_normal(len(points))
    time_s = np.clip(points.time_s + moved_s, 0, duration_s) if noise.jitter_s else points.time_s
    wrong = by_kind[2].random(len(points)) < noise.label_noise
    others = by_kind[2].integers(1, max(classes, 2), len(points))
    label = np.where(wrong, (points.label + others) % classes, points.label)
    pairs = zip(time_s[kept].tolist(), label[kept].tolist(), strict=True)
    return sorted_points(list(pairs))


def drawn_anew(
    id: str,
    instances: Segments,
    duration_s: float,
    *,
    kind: str,
    noise: PointNoise,
    seed: int,
    classes: int,
) -> Points:
    """Simulated points of a video; the random stream depends on its id and the seed.

    Args:
        id: of the video.
        instances: of the video, clipped to its duration.
        duration_s: of the video.
        kind: one of `choices.KINDS`.
        noise: the noise of the points.
        seed: of the points of all videos.
        classes: number of classes.
    """
    rng = np.random.default_rng([seed, zlib.crc32(id.encode())])
    kept = instances.take(instances.start_s < duration_s)
    inside = replace(kept, end_s=np.minimum(kept.end_s, duration_s))
    return disturbed(simulate_points(inside, rng, kind), noise, rng, duration_s, classes)


def given_noise(flags: argparse.Namespace, simulated: bool, needs: str) -> PointNoise:
    """The noise given by the flags.

    Args:
        flags: with those of `add_noise_flags`.
        simulated: whether points are simulated.
        needs: the flag that simulates them.

    Raises:
        ConfigError: a value is out of range, or the points are not simulated.
    """
    try:
        noise = PointNoise(
            dropout=flags.point_dropout, jitter_s=flags.point_jitter,
            label_noise=flags.point_label_noise,
        )  # fmt: skip
    except ConfigError as error:
        raise ConfigError(f"--point-{error}".replace("_", "-")) from error
    if noise != PointNoise() and not simulated:
        raise ConfigError(
            f"--point-jitter, --point-dropout and --point-label-noise apply only to simulated "
            f"points; pass {needs} KIND, or remove them"
        )
    return noise
