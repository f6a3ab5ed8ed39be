"""The contrasts of APL: pairs, clusters, sampled snippets and their classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptal_ray.methods.apl.contrast import contrast, kmeans, snippet_classes, snippets


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
