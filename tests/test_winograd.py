"""Convolutions with fewer products: the same results and gradients as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ptal_ray.ops.pyramid import ConvStack, convolved, joined, separated
from ptal_ray.ops.winograd import CHANNELS, POSITIONS, winograd, worthwhile


def plain(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """PyTorch's convolution."""
    return F.conv1d(value.mT, weight, padding=1).mT


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 37])
def test_results_and_gradients_are_those_of_a_convolution(length: int) -> None:
    torch.manual_seed(length)
    value = torch.randn(2, length, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    want = plain(value, weight)
    torch.testing.assert_close(winograd(value, weight), want)
    assert torch.autograd.gradcheck(winograd, (value, weight))


def test_rounding_is_a_few_times_that_of_the_plain_sum() -> None:
    torch.manual_seed(0)
    value, weight, direction = (
        torch.randn(s) for s in ((1, 598, 512), (256, 512, 3), (1, 598, 256))
    )

    def results(function: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        inputs = [t.to(dtype).requires_grad_() for t in (value, weight)]
        made = function(*inputs)
        return [made, *torch.autograd.grad(made, inputs, direction.to(dtype))]

    exact = results(plain, torch.float64)
    ours, theirs = results(winograd, torch.float32), results(plain, torch.float32)
    for own, other, true in zip(ours, theirs, exact, strict=True):
        assert (own - true).abs().max() < 8 * (other - true).abs().max()


def test_large_convolutions_take_it_in_training_and_inference() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    value = torch.randn(2, POSITIONS // 2, CHANNELS, requires_grad=True)
    assert worthwhile(value, conv.weight) and not worthwhile(value[:, 1:], conv.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not worthwhile(value, conv.weight)
        assert convolved(conv, value).dtype == torch.bfloat16
    want = conv(value.mT).mT
    ours = convolved(conv, value)
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-4)
    direction = torch.randn_like(ours)
    inputs = [value, conv.weight]
    for own, other in zip(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(want, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(convolved(conv, value), want, rtol=1e-4, atol=1e-4)


def test_joined_levels_give_what_each_gives_alone() -> None:
    """Also where a level has no padding: the gap behind it is an edge to each layer."""
    torch.manual_seed(0)
    stack = ConvStack(6, 6)
    for norm in stack.norms:
        torch.nn.init.normal_(norm.bias)  # so that layers are not zero on padding
    masks = [torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)]
    masks[0][1, 6:] = masks[1][1, 3:] = False
    levels = [torch.randn(*mask.shape, 6) * mask[..., None] for mask in masks]
    made = separated(stack(*joined(levels, masks)), masks)
    for level, mask, own in zip(levels, masks, made, strict=True):
        torch.testing.assert_close(own, stack(level, mask))
