"""Boundary-matching against golden values and against the dense mask."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import shared
from numpy.typing import NDArray

from ptal_ray.ops.boundary_matching import BoundaryMatching, SampleWeights, sample_weights


def dense(found: SampleWeights, length: int, num_sample: int) -> NDArray[np.float64]:
    """(T, N, T, T) weights by snippet, sample, start and end."""
    mask = np.zeros((length, num_sample, length, length))
    at = (found.snippet, found.sample, found.start[found.cell], found.end[found.cell])
    np.add.at(mask, at, found.weight)
    return mask


def one_by_one(length: int, num_sample: int, per_bin: int, ratio: float) -> NDArray[np.float64]:
    """As `dense`, each interpolation of each sample of each cell on its own."""
    mask = np.zeros((length, num_sample, length, length))
    for i in range(length):
        for j in range(i, length):
            context = (j + 1 - i + 1) * ratio
            low, high = i - context, j + 1 + context
            for k in range(num_sample * per_bin):
                place = low + (high - low) / (num_sample * per_bin - 1) * k
                share, below = math.modf(place)
                for t, weight in ((int(below), 1 - share), (math.ceil(place), share)):
                    if 0 <= t < length:
                        mask[t, k // per_bin, i, j] += weight / per_bin
    return mask


def golden() -> tuple[dict[str, Any], Any]:
    folder = shared("golden/bmn")
    return json.loads((folder / "cases.json").read_text()), np.load(folder / "cases.npz")


def test_golden_masks() -> None:
    cases, arrays = golden()
    for case in cases["masks"]:
        name, opt = case["name"], case["opt"]
        length, number = opt["temporal_scale"], opt["num_sample"]
        sampling = (number, opt["num_sample_perbin"], opt["prop_boundary_ratio"])
        found = sample_weights(length, *sampling)
        mask = dense(found, length, number)
        np.testing.assert_allclose(
            mask.reshape(length, -1), arrays[f"{name}/sample_mask"], atol=1e-6
        )
        valid = np.zeros((length, length))
        valid[found.start, found.end] = 1
        assert (valid == arrays[f"{name}/bm_valid"]).all()
        layer = BoundaryMatching(6, 6 * number, *sampling, longest=0)
        with torch.no_grad():  # each output is one sample of one channel
            layer.weight.copy_(torch.eye(6 * number).view(6, number, -1).transpose(0, 1))
            layer.bias.zero_()
            made = layer(torch.from_numpy(arrays[f"{name}/bm_input"]).mT)
        want = torch.from_numpy(arrays[f"{name}/bm_output"])[..., found.start, found.end]
        made = made.view(-1, 2, 6, number).permute(1, 2, 3, 0)
        torch.testing.assert_close(made, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 13])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5])
def test_weights_equal_one_by_one(length: int, ratio: float) -> None:
    found = sample_weights(length, 4, 2, ratio)
    np.testing.assert_allclose(dense(found, length, 4), one_by_one(length, 4, 2, ratio), atol=1e-12)


def test_the_layer_and_its_gradient_are_those_of_the_dense_mask() -> None:
    torch.manual_seed(0)
    length, longest = 9, 6
    layer = BoundaryMatching(5, 7, 4, 3, 0.5, longest)
    found = sample_weights(length, 4, 3, 0.5, longest)
    assert (found.end - found.start).max() == longest - 1
    mask = torch.from_numpy(dense(found, length, 4)).float()[..., found.start, found.end]
    value = torch.randn(3, length, 5, requires_grad=True)
    want = torch.einsum("tnk,btc,nco->kbo", mask, value, layer.weight) + layer.bias
    made = layer(value)
    torch.testing.assert_close(made, want)
    inputs, seed = (value, layer.weight, layer.bias), torch.randn_like(made)
    for a, b in zip(
        torch.autograd.grad(made, inputs, seed), torch.autograd.grad(want, inputs, seed),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
