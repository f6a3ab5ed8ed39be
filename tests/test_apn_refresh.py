"""Constrained k-medoids and background mining against the one-step-at-a-time reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_apn import slow_clusters

from ptal_ray.methods.apn.refresh import cluster_points


def random_video(rng: np.random.Generator, length: int, smooth: bool) -> np.ndarray:
    x = rng.standard_normal((length, 6))
    if smooth:  # stretches of one direction each, as actions have
        x = 0.4 * x + np.repeat(rng.standard_normal((length // 5 + 1, 6)), 5, axis=0)[:length]
    return x


def check(
    videos: list[np.ndarray], points: list[list[int]], distance: str, kappa: float, iterations: int
) -> None:
    longest = max(map(len, videos)) + 3
    embedding = torch.full((len(videos), longest, 6), 7.0)
    mask = torch.zeros(len(videos), longest, dtype=torch.bool)
    most = max([1, *map(len, points)]) + 1
    point_t = torch.full((len(videos), most), -1)
    for row, (x, own) in enumerate(zip(videos, points, strict=True)):
        embedding[row, : len(x)] = torch.from_numpy(x)
        mask[row, : len(x)] = True
        point_t[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
    made = cluster_points(
        embedding, mask, point_t, distance=distance, kappa=kappa, iterations=iterations
    )
    for row, (x, own) in enumerate(zip(videos, points, strict=True)):
        actions, background = slow_clusters(x, own, distance, kappa, iterations)
        number = len(own)
        spans = torch.stack([made["start_t"][row], made["end_t"][row]], dim=1).tolist()
        assert [tuple(s) for s in spans[:number]] == actions, (own, distance)
        assert all(s == [-1, -1] for s in spans[number:])
        assert made["valid"][row].tolist() == [True] * number + [False] * (most - number)
        runs = torch.stack(
            [made["background_start_t"][row], made["background_end_t"][row]], dim=1
        ).tolist()
        expected = [list(b) if b else [-1, -1] for b in background]
        assert runs[: number + 1] == expected
        assert made["background_valid"][row].tolist()[: number + 1] == [
            b is not None for b in background
        ]
        covered = np.zeros(len(x), int)
        for (first, last), point in zip(actions, own, strict=True):
            assert first <= point <= last
            covered[first : last + 1] += 1
        for run in background:
            if run:
                covered[run[0] : run[1] + 1] += 1
        assert not number or (covered == 1).all()


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
@pytest.mark.parametrize("seed", range(12))
def test_random_videos(seed: int, distance: str) -> None:
    rng = np.random.default_rng(seed)
    videos, points = [], []
    for _ in range(6):
        length = int(rng.integers(6, 60))
        videos.append(random_video(rng, length, smooth=seed % 2 == 0))
        number = int(rng.integers(0, min(7, length)))
        points.append(sorted(rng.choice(length, number, replace=False).tolist()))
    kappa = [0.5, 1.0, 1.5][seed % 3]
    check(videos, points, distance, kappa, iterations=int(rng.integers(1, 11)))


@pytest.mark.parametrize(
    ("length", "points"),
    [
        (1, [0]),
        (1, []),
        (9, []),
        (9, [0]),
        (9, [8]),
        (9, [0, 8]),
        (9, [3, 4]),
        (9, [3, 5]),
        (9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (9, [2, 6]),
    ],
)
@pytest.mark.parametrize("kind", ["random", "constant", "zero"])
def test_degenerate_videos(length: int, points: list[int], kind: str) -> None:
    rng = np.random.default_rng(length)
    x = {
        "random": rng.standard_normal((length, 6)),
        "constant": np.ones((length, 6)),
        "zero": np.zeros((length, 6)),
    }[kind]
    check([x], [points], "cosine", 1.0, 10)


def test_actions_are_found_around_their_points() -> None:
    rng = np.random.default_rng(0)
    action, scene = rng.standard_normal((2, 6))
    x = scene + 0.05 * rng.standard_normal((40, 6))
    x[8:14] += 3 * action
    x[25:33] += 3 * action
    made = cluster_points(
        torch.from_numpy(x)[None],
        torch.ones(1, 40, dtype=torch.bool),
        torch.tensor([[10, 30]]),
        iterations=0,
    )
    assert made["start_t"].tolist() == [[8, 25]]
    assert made["end_t"].tolist() == [[13, 32]]
    assert made["background_start_t"].tolist() == [[0, 14, 33]]
