"""The contrasts of APL: pairs, clusters, sampled snippets and their classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptal_ray.methods.apl.contrast import (
    batch_contrast,
    contrast,
    kmeans,
    snippet_classes,
    snippets,
)
from ptal_ray.methods.method import Step


def brute_contrast(value: torch.Tensor, cluster: list[int], temperature: float) -> float:
    terms = []
    for i, mine in enumerate(cluster):
        others = [n for n, c in enumerate(cluster) if c >= 0 and c != mine]
        for j, theirs in enumerate(cluster):
            if mine < 0 or theirs != mine or i == j or not others:
                continue
            e = torch.exp(value[i] @ value.T / temperature)
            terms.append(-torch.log(e[j] / (e[j] + e[others].sum())))
    return float(torch.stack(terms).mean()) if terms else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_contrast_is_the_mean_over_pairs(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    value = torch.nn.functional.normalize(torch.randn(2, 9, 5, generator=draw).double(), dim=2)
    cluster = torch.randint(-1, 3, (2, 9), generator=draw)
    made = contrast(value, cluster, 0.3)
    want = [brute_contrast(value[k], cluster[k].tolist(), 0.3) for k in (0, 1)]
    np.testing.assert_allclose(made, want, rtol=1e-9)
    assert contrast(value, torch.zeros_like(cluster), 0.3).tolist() == [0, 0]


def test_contrast_falls_when_clusters_part() -> None:
    cluster = torch.tensor([[0, 0, 1, 1]])
    near = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [1, 0]]])
    far = torch.tensor([[[1.0, 0], [1, 0], [-1, 0], [-1, 0]]])
    assert contrast(far, cluster, 0.1) < 1e-6 < contrast(near, cluster, 0.1)


def test_kmeans_finds_what_lies_apart_and_leaves_no_cluster_empty() -> None:
    draw = torch.Generator().manual_seed(1)
    truth = torch.arange(60).reshape(1, 60) % 3
    value = torch.randn(1, 60, 4, generator=draw) * 0.1 + 5 * torch.eye(4)[truth]
    counted = torch.ones(1, 60, dtype=torch.bool)
    counted[0, 50:] = False
    value[0, 50:] = 100.0  # does not count
    for seed in range(5):
        start = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed))
        found = kmeans(value, counted, 3, start)[0, :50]
        assert len({(int(a), int(b)) for a, b in zip(found, truth[0, :50], strict=True)}) == 3
    few = kmeans(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), 5, torch.rand(1, 5))
    assert few.shape == (1, 3)  # more clusters than points is no error


def test_one_snippet_of_each_part() -> None:
    length = torch.tensor([100, 7])
    draw = torch.rand(2, 10, generator=torch.Generator().manual_seed(0))
    at, counted = snippets(length, 10, draw)
    assert (at[0] // 10).tolist() == list(range(10)) and counted[0].all()
    assert at[1, :7].tolist() == list(range(7)) and counted[1].sum() == 7


def test_snippets_take_the_class_of_the_shortest_instance() -> None:
    own = {
        "start_t": torch.tensor([[0.0, 4.0, 20.0]]), "end_t": torch.tensor([[10.0, 6.0, 24.0]]),
        "label": torch.tensor([[0, 1, 1]]), "ignored": torch.tensor([[False, False, True]]),
    }  # fmt: skip
    found = snippet_classes(own, torch.tensor([[1, 5, 15, 22]]))
    assert found.tolist() == [[0, 1, -1, -2]]


@pytest.mark.parametrize("form", ["coarse", "fine", "both"])
def test_kinds_of_videos_are_contrasted_apart(form: str) -> None:
    hp = SimpleNamespace(sampled=6, temperature=0.2, contrast=form)
    draw = torch.Generator().manual_seed(3)
    levels = [torch.randn(4, 12, 5, generator=draw), torch.randn(4, 6, 5, generator=draw)]
    length = torch.tensor([12, 10, 12, 9])
    own = {
        "start_t": torch.tensor([[2.0], [1.0], [4.0], [3.0]]),
        "end_t": torch.tensor([[7.0], [6.0], [9.0], [8.0]]),
        "label": torch.tensor([[0], [1], [1], [0]]),
        "ignored": torch.zeros(4, 1, dtype=torch.bool),
    }
    first = torch.tensor([True, False, True, False])

    def made(*kinds: tuple[torch.Tensor, float], levels: list[torch.Tensor] = levels) -> float:
        step = Step(index=0, epoch=0.0, generator=torch.Generator().manual_seed(0))
        return float(batch_contrast(levels, torch.zeros(4, 12, 2), length, own, hp, step, kinds))

    one, two = made((first, 1.0)), made((~first, 1.0))
    assert made((first, 1.0), (~first, 3.0)) == pytest.approx(one + 3 * two, rel=1e-5)
    other = [value + (~first)[:, None, None] * torch.randn_like(value) for value in levels]
    assert made((first, 1.0), levels=other) == pytest.approx(one, rel=1e-5)
    assert made((~first, 1.0), levels=other) != pytest.approx(two, rel=1e-3)
    assert made((torch.zeros(4, dtype=torch.bool), 1.0)) == 0
    whole = made((torch.ones(4, dtype=torch.bool), 1.0))
    assert made() == whole
    if form == "coarse":
        assert whole == pytest.approx((one + two) / 2, rel=1e-5)
