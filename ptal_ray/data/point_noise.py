"""What is wrong with the points of a careless annotator: moved, forgotten, of a wrong class."""

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
    """How simulated points are disturbed, in this order.

    Args:
        dropout: share of the points left out, each by chance.
        jitter_s: standard deviation of a Gaussian shift of each point, seconds.
        label_noise: share of the points that get another class, each by chance.

    Raises:
        ConfigError: a value is out of range.
    """

    dropout: float = 0.0
    jitter_s: float = 0.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter_s < math.inf:
            raise ConfigError(f"jitter {self.jitter_s:g}: allowed are seconds of 0 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout:g}: allowed is a share from 0 to <1")
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(f"label_noise {self.label_noise:g}: allowed is a share from 0 to 1")

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
    """Points with noise. Each kind has randomness of its own, so none changes another.

    Args:
        points: P points.
        noise: what is done to them.
        rng: where randomness comes from.
        duration_s: of the video; a shifted point stays in it.
        classes: number of classes; of one class there is no other.

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
    """Simulated points of a video, whose randomness follows from its id and the seed.

    Args:
        id: of the video.
        instances: of it; what lies behind its end is left out.
        duration_s: of it.
        kind: one of `choices.KINDS`.
        noise: what is done to the points.
        seed: of the points of all videos.
        classes: number of classes.
    """
    rng = np.random.default_rng([seed, zlib.crc32(id.encode())])
    kept = instances.take(instances.start_s < duration_s)
    inside = replace(kept, end_s=np.minimum(kept.end_s, duration_s))
    return disturbed(simulate_points(inside, rng, kind), noise, rng, duration_s, classes)


def given_noise(flags: argparse.Namespace, simulated: bool, needs: str) -> PointNoise:
    """The noise that the flags ask for.

    Args:
        flags: with those of `add_noise_flags`.
        simulated: whether points are simulated.
        needs: the flag that simulates them.

    Raises:
        ConfigError: a value is out of range, or published points would be disturbed.
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
            f"--point-jitter, --point-dropout and --point-label-noise change simulated points "
            f"alone; pass {needs} KIND, or leave them out"
        )
    return noise
