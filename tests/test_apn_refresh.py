"""Constrained k-medoids and background mining against the one-step-at-a-time reference."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_apn import slow_clusters
from torch import Tensor

from ptal_ray.methods.apn.params import ApnTrain
from ptal_ray.methods.apn.refresh import cluster_points, refresh
from ptal_ray.methods.method import Batch, Pseudo

IMPLEMENTATION = sys.modules["ptal_ray.methods.apn.refresh"]  # the package exports a function
DIM = 6
Videos = list[np.ndarray]
Points = list[list[int]]


def padded(
    videos: Videos,
    points: Points,
    dtype: torch.dtype = torch.float64,
    extra: int = 3,
    spare: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding with `extra` snippets of rubbish, mask, and points with `spare` columns of pads."""
    longest = max(map(len, videos)) + extra
    embedding = torch.full((len(videos), longest, DIM), 7.0, dtype=dtype)
    mask = torch.zeros(len(videos), longest, dtype=torch.bool)
    point_t = torch.full((len(videos), max(1, *map(len, points), 0) + spare), -1)
    for row, (x, own) in enumerate(zip(videos, points, strict=True)):
        embedding[row, : len(x)] = torch.from_numpy(x)
        mask[row, : len(x)] = True
        point_t[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
    return embedding, mask, point_t


def spans(made: Pseudo, kind: str, row: int) -> list[tuple[int, int] | None]:
    """One row of the result as pairs, None where it says there is nothing."""
    start, end = made[f"{kind}start_t"][row].tolist(), made[f"{kind}end_t"][row].tolist()
    valid = made[f"{kind}valid"][row].tolist()
    pairs = list(zip(start, end, strict=True))
    assert [pair != (-1, -1) for pair in pairs] == valid
    return [pair if there else None for pair, there in zip(pairs, valid, strict=True)]


def check(
    videos: Videos,
    points: Points,
    distance: str = "cosine",
    kappa: float = 1.0,
    iterations: int = 10,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Equality with the reference, and what must hold of any labels."""
    made = cluster_points(
        *padded(videos, points, dtype), distance=distance, kappa=kappa, iterations=iterations
    )
    for row, (x, own) in enumerate(zip(videos, points, strict=True)):
        actions, background = slow_clusters(x, own, distance, kappa, iterations)
        pads = made["start_t"].shape[1] - len(own)
        assert spans(made, "", row) == [*actions, *[None] * pads], (own, distance)
        assert spans(made, "background_", row) == [*background, *[None] * pads], (own, distance)
        covered = np.zeros(len(x), int)
        for (first, last), point in zip(actions, own, strict=True):
            assert first <= point <= last
            covered[first : last + 1] += 1
        for run in filter(None, background):
            assert run[0] <= run[1]
            covered[run[0] : run[1] + 1] += 1
        assert not own or (covered == 1).all()


def random_video(rng: np.random.Generator, length: int, kind: str) -> np.ndarray:
    """Noise, stretches of one direction each, or snippets drawn from three vectors."""
    if kind == "palette":  # many exact ties
        return rng.standard_normal((3, DIM))[rng.integers(0, 3, length)]
    x = rng.standard_normal((length, DIM))
    if kind == "stretches":
        steps = np.repeat(rng.standard_normal((length // 5 + 1, DIM)), 5, axis=0)
        return np.maximum(0.4 * x + steps[:length], 0)
    return x


def random_videos(seed: int, kind: str, count: int = 6, longest: int = 60) -> tuple[Videos, Points]:
    rng = np.random.default_rng(seed)
    videos, points = [], []
    for _ in range(count):
        length = int(rng.integers(1, longest))
        videos.append(random_video(rng, length, kind))
        number = int(rng.integers(0, min(7, length) + 1))
        points.append(sorted(rng.choice(length, number, replace=False).tolist()))
    return videos, points


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
@pytest.mark.parametrize("kind", ["noise", "stretches", "palette"])
@pytest.mark.parametrize("seed", range(8))
def test_random_videos(seed: int, kind: str, distance: str) -> None:
    kappa, iterations = [0.5, 1.0, 1.5][seed % 3], [0, 1, 2, 10][seed % 4]
    check(*random_videos(seed, kind), distance, kappa, iterations)


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
@pytest.mark.parametrize("kind", ["noise", "stretches", "palette"])
def test_single_precision(kind: str, distance: str) -> None:
    videos, points = random_videos(99, kind, count=12)
    videos = [x.astype(np.float32).astype(np.float64) for x in videos]
    check(videos, points, distance, dtype=torch.float32)


@pytest.mark.parametrize("tile", [1, 7, 16])
def test_tiles_of_any_size(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IMPLEMENTATION, "TILE", tile)
    for kind in ("stretches", "palette"):
        check(*random_videos(tile, kind))


def test_dense_points_over_several_tiles() -> None:
    rng = np.random.default_rng(0)
    videos = [random_video(rng, length, "stretches") for length in (300, 170)]
    points = [sorted(rng.choice(len(x), 60, replace=False).tolist()) for x in videos]
    check(videos, points)


def test_euclid_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IMPLEMENTATION, "MAX_PAIRS", 2 * 60**2)
    check(*random_videos(5, "stretches", count=7), "euclid")


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_few_different_snippets(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 14))
    palette = np.array([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0], [0] * 6], float)
    index = data.draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    own = sorted(data.draw(st.sets(st.integers(0, length - 1))))
    distance = data.draw(st.sampled_from(["cosine", "euclid"]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    check([palette[index]], [own], distance, data.draw(st.sampled_from([0.5, 1.0, 2.0])), 10, dtype)


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
@pytest.mark.parametrize("kind", ["noise", "constant", "zero"])
@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_degenerate_videos(length: int, points: list[int], kind: str, distance: str) -> None:
    rng = np.random.default_rng(length)
    x = {
        "noise": rng.standard_normal((length, DIM)),
        "constant": np.full((length, DIM), 0.3) + np.arange(DIM),
        "zero": np.zeros((length, DIM)),
    }[kind]
    for dtype in (torch.float32, torch.float64):
        check([x], [points], distance, dtype=dtype)


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_padding_and_batch_mates_change_nothing(distance: str) -> None:
    videos, points = random_videos(3, "stretches", count=9)
    together = cluster_points(*padded(videos, points, extra=40, spare=9), distance=distance)
    for row, (x, own) in enumerate(zip(videos, points, strict=True)):
        alone = cluster_points(*padded([x], [own], extra=0), distance=distance)
        for kind in ("", "background_"):
            size = alone[f"{kind}valid"].shape[1]
            assert spans(together, kind, row)[:size] == spans(alone, kind, 0)


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_scale_and_layout_change_nothing(distance: str) -> None:
    embedding, mask, point_t = padded(*random_videos(4, "stretches"))
    plain = cluster_points(embedding, mask, point_t, distance=distance)
    other = cluster_points(1000 * embedding.mT.contiguous().mT, mask, point_t, distance=distance)
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_no_background_with_a_strict_kappa() -> None:
    embedding, mask, point_t = padded(*random_videos(6, "stretches"))
    made = cluster_points(embedding, mask, point_t, kappa=1000.0)
    assert not made["background_valid"].any()
    with_points = made["valid"].any(dim=1)
    assert (made["start_t"][with_points, 0] == 0).all()
    assert torch.equal(made["end_t"].amax(dim=1)[with_points], mask.sum(dim=1)[with_points] - 1)


@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_a_diverged_embedding_still_gives_labels(distance: str) -> None:
    embedding = torch.full((2, 20, 4), torch.nan)
    embedding[1] = torch.inf
    mask = torch.ones(2, 20, dtype=torch.bool)
    point_t = torch.tensor([[3, 9, 15], [4, 10, -1]])
    made = cluster_points(embedding, mask, point_t, distance=distance)
    for name, value in made.items():
        assert value.dtype == torch.bool or ((value >= -1) & (value < 20)).all(), name


def test_actions_are_found_around_their_points() -> None:
    rng = np.random.default_rng(0)
    action, scene = rng.standard_normal((2, DIM))
    x = scene + 0.05 * rng.standard_normal((40, DIM))
    x[8:14] += 3 * action
    x[25:33] += 3 * action
    made = cluster_points(*padded([x], [[10, 30]], extra=0), iterations=0)
    assert made["start_t"].tolist() == [[8, 25]]
    assert made["end_t"].tolist() == [[13, 32]]
    assert made["background_start_t"].tolist() == [[0, 14, 33]]


class Identity(torch.nn.Module):
    """A model whose embedding is the features, with a gradient."""

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        return features.clone().requires_grad_() * mask[..., None]


@pytest.mark.parametrize("update", [True, False])
def test_refresh_follows_the_parameters(update: bool) -> None:
    features, mask, point_t = padded(*random_videos(8, "stretches"), dtype=torch.float32)
    batch = Batch(
        ids=tuple("abcdef"), features=features, mask=mask, point_t=point_t,
        point_label=(point_t >= 0)[..., None].float(), crop_t=torch.zeros(6, dtype=torch.int64),
        pair_t=point_t, pair_class=point_t, most_pairs=0,
    )  # fmt: skip
    hp = ApnTrain(distance="euclid", kappa=0.7, kmedoid_iterations=3, update_medoids=update)
    made = refresh(Identity(), batch, hp)
    expected = cluster_points(
        features, mask, point_t, distance="euclid", kappa=0.7, iterations=3 if update else 0
    )
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)
    assert not any(value.requires_grad for value in made.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("distance", ["cosine", "euclid"])
def test_gpu_without_waiting(distance: str) -> None:
    inputs = padded(*random_videos(10, "stretches", count=16, longest=200))
    expected = cluster_points(*inputs, distance=distance)
    on_gpu = [v.cuda() for v in inputs]
    cluster_points(*on_gpu, distance=distance)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = cluster_points(*on_gpu, distance=distance)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(made[name].cpu(), expected[name]) for name in expected)
