"""The fixed recipe "simulated-v1": features of a video from its annotations and a seed.

Order of random draws. World: core, start, end and scene of the first class, of the second, ...,
then the motion. Video: shift of the drift; strength of each instance; coin, length, place and
height of each distractor; own vector and drift vector; noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments

Floats = NDArray[np.floating[Any]]

VERSION = "simulated-v1"
SIGMA = {"easy": 0.6, "standard": 1.0, "hard": 1.6}  # length of the noise vector of a snippet
RAMP, PHASE = 0.3, 0.4  # shares of an instance: its weak ends, its start and end phases
AR = 0.6  # correlation of the noise of neighbouring snippets


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What fixes the features of a video, besides its annotations.

    Args:
        num_classes: C.
        dim: D.
        stride_s: seconds a snippet covers.
        difficulty: "easy", "standard" or "hard".
        seed: of the world and of every video.
    """

    num_classes: int
    dim: int = 128
    stride_s: float = 0.64
    difficulty: str = "standard"
    seed: int = 0

    @property
    def label(self) -> str:
        """How stores and tables name these features."""
        return f"{VERSION} D={self.dim} {self.difficulty} seed={self.seed}"

    def generator(self, *words: str) -> np.random.Generator:
        """The random stream of (version, seed, words)."""
        key = "\n".join([VERSION, str(self.seed), *words])
        digest = hashlib.sha256(key.encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))

    def num_snippets(self, duration_s: float) -> int:
        """T = ceil(duration / stride), where 64 s at 0.64 s are 100 whatever the rounding."""
        return max(1, int(np.ceil(duration_s / self.stride_s - 1e-9)))


@dataclass(frozen=True, kw_only=True)
class World:
    """Directions that all videos of a dataset share.

    Args:
        phase: (C, 3, D) float32, what the core, the start and the end of a class add.
        scene: (C, D) float32, unit vectors: the surroundings of a class.
    """

    phase: NDArray[np.float32]
    scene: NDArray[np.float32]


@lru_cache(maxsize=1)
def world(recipe: Recipe) -> World:
    """The world of a recipe, the same in every process."""
    rng = recipe.generator("world")
    core, start, end, scene = _units(rng, recipe.num_classes, 4, recipe.dim).swapaxes(0, 1)
    motion = _units(rng, recipe.dim)
    phase = np.stack([core, 0.7 * start + 0.5 * motion, 0.7 * end + 0.5 * motion], axis=1)
    return World(phase=phase.astype(np.float32), scene=scene.astype(np.float32))


def video_features(
    recipe: Recipe, id: str, duration_s: float, instances: Segments
) -> NDArray[np.float16]:
    """Features of one video, from its own random stream.

    Args:
        recipe: dimension, noise, seed.
        id: of the video.
        duration_s: of the video.
        instances: G annotated ones, in the order of the file.

    Returns:
        (T, D) float16.

    Source: the recipe "simulated-v1".
    """
    rng, directions = recipe.generator(id), world(recipe)
    middle_s = (np.arange(recipe.num_snippets(duration_s)) + 0.5) * recipe.stride_s
    shift = rng.random()
    action = _action_weight(rng, instances, middle_s, recipe.stride_s)
    lure = _distractor_weight(rng, instances, duration_s, middle_s, recipe.stride_s)
    action[:, 0] += lure
    classes = np.unique(instances.label)
    member = (classes[:, None] == instances.label).astype(np.float32)
    weight = np.einsum("kg,gpt->kpt", member, action.astype(np.float32))
    own, drift = _units(rng, 2, recipe.dim).astype(np.float32)
    if len(classes):
        own = own + np.float32(0.6) * directions.scene[classes].mean(axis=0)
    wave = 0.5 * np.sin(2 * np.pi * (middle_s / duration_s + shift))
    features = own + wave.astype(np.float32)[:, None] * drift
    features += np.einsum("kpt,kpd->td", weight, directions.phase[classes])
    noise = ar1(rng.standard_normal(features.shape, dtype=np.float32))
    features += np.float32(SIGMA[recipe.difficulty] / np.sqrt(recipe.dim)) * noise
    stored: NDArray[np.float16] = features.astype(np.float16)
    return stored


def ar1(white: Floats) -> Floats:
    """n_t = 0.6 n_{t-1} + 0.8 e_t from n_0 = e_0, which keeps the variance at 1.

    Summed by doubling: after k rounds each row holds its last 2^k terms; 0.6^64 is below 1e-14.

    Args:
        white: (T, D) independent standard normal e.

    Returns:
        (T, D).
    """
    noise = 0.8 * white
    noise[:1] = white[:1]
    lag = 1
    while lag < min(64, len(noise)):
        noise[lag:] += AR**lag * noise[:-lag]
        lag *= 2
    return noise


def _units(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Gaussian directions along the last axis."""
    draw = rng.standard_normal(shape)
    unit: NDArray[np.float64] = draw / np.linalg.norm(draw, axis=-1, keepdims=True)
    return unit


def _overlap(start_s: Floats, end_s: Floats, middle_s: Floats, stride_s: float) -> Floats:
    """(G, T): the share of each snippet that lies in [start, end]."""
    right = np.minimum(end_s[:, None], middle_s + stride_s / 2)
    left = np.maximum(start_s[:, None], middle_s - stride_s / 2)
    share: Floats = np.clip((right - left) / stride_s, 0, 1)
    return share


def _action_weight(
    rng: np.random.Generator, instances: Segments, middle_s: Floats, stride_s: float
) -> Floats:
    """(G, 3, T): weights of core, start and end that each instance adds to its class."""
    strength = np.exp(rng.normal(0, 0.25, len(instances)))
    start_s, end_s = instances.start_s, instances.end_s
    position = np.clip((middle_s - start_s[:, None]) / (end_s - start_s)[:, None], 0, 1)
    core = np.clip(np.minimum(position, 1 - position) / RAMP, 0, 1)
    first, last = (np.clip(1 - u / PHASE, 0, 1) for u in (position, 1 - position))
    profile = 0.35 + 0.65 * core
    scale = _overlap(start_s, end_s, middle_s, stride_s) * strength[:, None] * profile
    return scale[:, None] * np.stack([core, first, last], axis=1)


def _distractor_weight(
    rng: np.random.Generator,
    instances: Segments,
    duration_s: float,
    middle_s: Floats,
    stride_s: float,
) -> Floats:
    """(G, T): weights of core at places that look like an instance's class and are not."""
    count = len(instances)
    drawn = rng.random(count) < 0.3
    length_s = rng.uniform(1, 3, count)
    start_s = rng.random(count) * np.maximum(duration_s - length_s, 0)
    height = rng.uniform(0.5, 0.9, count)
    end_s = start_s + length_s
    touches = (start_s[:, None] < instances.end_s) & (end_s[:, None] > instances.start_s)
    free = drawn & ~touches.any(axis=1)
    return _overlap(start_s, end_s, middle_s, stride_s) * (0.6 * free * height)[:, None]
