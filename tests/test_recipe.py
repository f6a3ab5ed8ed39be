"""The recipe of simulated features against a slow reading of it, one snippet at a time."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from ptal_ray.data.recipe import SIGMA, Recipe, ar1, video_features, world
from ptal_ray.data.types import Segments


def segments(*rows: tuple[float, float, int]) -> Segments:
    start, end, label = zip(*rows, strict=True) if rows else ((), (), ())
    return Segments(
        start_s=np.array(start, float),
        end_s=np.array(end, float),
        label=np.array(label, np.int64),
        score=np.ones(len(rows)),
    )


def slow_generator(*words: str) -> np.random.Generator:
    digest = hashlib.sha256("\n".join(words).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def slow_unit(rng: np.random.Generator, dim: int) -> np.ndarray:
    vector = rng.standard_normal(dim)
    return vector / math.sqrt((vector * vector).sum())


def slow_world(recipe: Recipe) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    rng = slow_generator("simulated-v1", str(recipe.seed), "world")
    parts = ("core", "start", "end", "scene")
    classes = [{p: slow_unit(rng, recipe.dim) for p in parts} for _ in range(recipe.num_classes)]
    return classes, slow_unit(rng, recipe.dim)


def slow_overlap(start: float, end: float, t: int, stride: float) -> float:
    return max(0.0, min(end, (t + 1) * stride) - max(start, t * stride)) / stride


def clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def slow_features(recipe: Recipe, id: str, duration: float, instances: Segments) -> np.ndarray:
    classes, motion = slow_world(recipe)
    rng = slow_generator("simulated-v1", str(recipe.seed), id)
    rows = list(zip(instances.start_s, instances.end_s, instances.label, strict=True))
    shift = rng.random()
    strength = [math.exp(0.25 * rng.standard_normal()) for _ in rows]
    coin = [rng.random() for _ in rows]
    length = [1 + 2 * rng.random() for _ in rows]
    place = [rng.random() for _ in rows]
    height = [0.5 + 0.4 * rng.random() for _ in rows]
    own, drift = slow_unit(rng, recipe.dim), slow_unit(rng, recipe.dim)
    count = math.ceil(duration / recipe.stride_s)
    white = rng.standard_normal((count, recipe.dim), dtype=np.float32).astype(float)
    present = sorted({int(label) for label in instances.label})
    scene = sum((classes[c]["scene"] for c in present), np.zeros(recipe.dim)) / max(1, len(present))
    noise = white[0]
    features = []
    for t in range(count):
        middle = (t + 0.5) * recipe.stride_s
        x = own + 0.6 * scene + 0.5 * math.sin(2 * math.pi * (middle / duration + shift)) * drift
        for (start, end, c), g in zip(rows, strength, strict=True):
            u = clip((middle - start) / (end - start))
            core = clip(min(u, 1 - u) / 0.3)
            profile = 0.35 + 0.65 * core
            add = core * classes[c]["core"]
            add = add + clip(1 - u / 0.4) * (0.7 * classes[c]["start"] + 0.5 * motion)
            add = add + clip(1 - (1 - u) / 0.4) * (0.7 * classes[c]["end"] + 0.5 * motion)
            x = x + slow_overlap(start, end, t, recipe.stride_s) * g * profile * add
        for k, (_, _, c) in enumerate(rows):
            begin = place[k] * max(0.0, duration - length[k])
            until = begin + length[k]
            free = all(until <= start or begin >= end for start, end, _ in rows)
            if coin[k] < 0.3 and free:
                lure = slow_overlap(begin, until, t, recipe.stride_s) * height[k] * 0.6
                x = x + lure * classes[c]["core"]
        noise = noise if t == 0 else 0.6 * noise + 0.8 * white[t]
        features.append(x + SIGMA[recipe.difficulty] / math.sqrt(recipe.dim) * noise)
    return np.array(features)


VIDEOS = {
    "one": (20.0, segments((3.0, 7.5, 0))),
    "no action": (10.0, segments()),
    "shorter than a snippet": (0.4, segments((0.1, 0.3, 1))),
    "overlapping, two classes at once": (
        40.0, segments((5, 9, 0), (5, 9, 1), (7.2, 12.9, 0), (30.1, 30.4, 2))
    ),
    "reaches behind the video": (12.0, segments((8.0, 14.0, 2))),
    "many": (150.0, segments(*[(5.0 * k, 5.0 * k + 0.7 + 0.1 * k, k % 3) for k in range(28)])),
}  # fmt: skip


@pytest.mark.parametrize("id", VIDEOS)
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_features_follow_the_recipe(id: str, difficulty: str) -> None:
    recipe = Recipe(num_classes=3, dim=16, difficulty=difficulty, seed=3)
    duration, instances = VIDEOS[id]
    features = video_features(recipe, id, duration, instances)
    assert features.dtype == np.float16
    np.testing.assert_allclose(
        features, slow_features(recipe, id, duration, instances), rtol=1e-3, atol=1e-3
    )


def test_some_of_those_videos_have_distractors() -> None:
    rng = Recipe(num_classes=3, dim=16, seed=3).generator("many")
    rng.random()
    rng.normal(0, 0.25, 28)
    assert 3 <= (rng.random(28) < 0.3).sum() <= 15


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 700])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_noise_equals_the_recursion(length: int, dtype: Any, tolerance: float) -> None:
    white = np.random.default_rng(length).standard_normal((length, 4)).astype(dtype)
    expected = white.astype(np.float64)
    for t in range(1, length):
        expected[t] = 0.6 * expected[t - 1] + 0.8 * white[t]
    noise = ar1(white)
    assert noise.dtype == dtype
    np.testing.assert_allclose(noise, expected, rtol=0, atol=tolerance)


def test_noise_keeps_its_variance_and_correlation() -> None:
    noise = ar1(np.random.default_rng(0).standard_normal((20_000, 8)))
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise[1:] * noise[:-1]).mean() == pytest.approx(0.6, abs=0.02)
    assert np.abs(noise[0]).max() < 4


def test_noise_lengthens_with_the_difficulty() -> None:
    spread = {}
    for difficulty in SIGMA:
        recipe = Recipe(num_classes=1, dim=64, difficulty=difficulty)
        features = video_features(recipe, "v", 600.0, segments()).astype(float)
        # The drift is slow: neighbours differ by noise, whose difference has variance 2 (1 - 0.6).
        difference = np.diff(features, axis=0)
        spread[difficulty] = math.sqrt((difference**2).sum(axis=1).mean() / 0.8)
    assert spread == pytest.approx(SIGMA, rel=0.02)


def test_scene_vectors_of_the_world_are_unit_and_depend_on_the_seed_alone() -> None:
    recipe = Recipe(num_classes=5, dim=2048)
    np.testing.assert_allclose(np.linalg.norm(world(recipe).scene, axis=1), 1, rtol=1e-6)
    same = Recipe(num_classes=5, dim=2048, difficulty="hard", stride_s=1.0)
    np.testing.assert_array_equal(world(recipe).phase, world(same).phase)
    other = Recipe(num_classes=5, dim=2048, seed=1)
    assert np.abs((world(recipe).scene * world(other).scene).sum(axis=1)).max() < 0.15


@pytest.mark.parametrize(
    ("duration", "count"), [(64.0, 100), (64.01, 101), (63.99, 100), (0.01, 1), (6.4, 10)]
)
def test_snippets_cover_the_video(duration: float, count: int) -> None:
    assert Recipe(num_classes=1).num_snippets(duration) == count
