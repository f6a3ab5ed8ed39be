"""Convolutions of width 3 over time with half the multiplications, for CPUs.

Four neighbouring outputs of a convolution with three weights need twelve products; Winograd's F(4,
3) needs six: of six sums of the inputs with six sums of the weights. The same holds for both
gradients. The rounding error is up to a few times that of the plain sum.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# of the three weights, one row per product
WEIGHT_SUMS = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
CHANNELS, POSITIONS = 256, 512  # with fewer of either, the sums take more time than they save


def worthwhile(value: Tensor, weight: Tensor) -> bool:
    """Whether `winograd` is faster than PyTorch's convolution: float32 on a CPU, large enough."""
    return (
        value.device.type == "cpu"
        and value.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()  # tracing cannot choose by the length of a video
        and min(weight.shape[:2]) >= CHANNELS
        and value.shape[0] * value.shape[1] >= POSITIONS
    )


def winograd(value: Tensor, weight: Tensor) -> Tensor:
    """The convolution with a zero on both sides, without a bias.

    Args:
        value: (B, T, I).
        weight: (O, I, 3).

    Returns:
        (B, T, O).
    """
    made: Tensor = _Winograd.apply(value, weight)  # type: ignore[no-untyped-call]
    return made


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor) -> Tensor:
        """The convolution of `value` with `weight`."""
        ctx.save_for_backward(value, weight)
        products = torch.bmm(_input_sums(value), _weight_sums(weight).mT)
        made = _outputs(products.view(6, len(value), -1, len(weight)))
        return made.flatten(1, 2)[:, : value.shape[1]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of value and weight, where they are required."""
        value, weight = ctx.saved_tensors
        products = _products_gradient(grad)
        grads: list[Tensor | None] = [None, None]
        if ctx.needs_input_grad[0]:
            sums = torch.bmm(products, _weight_sums(weight))
            made = _value_gradient(sums.view(6, len(value), -1, value.shape[2]))
            grads[0] = made.flatten(1, 2)[:, : value.shape[1]]
        if ctx.needs_input_grad[1]:
            sums = torch.bmm(products.mT, _input_sums(value))
            rows = weight.new_tensor(WEIGHT_SUMS).T @ sums.flatten(1)
            grads[1] = rows.T.reshape(weight.shape)
        return grads[0], grads[1]


def _weight_sums(weight: Tensor) -> Tensor:
    """(O, I, 3) -> (6, O, I)."""
    sums = weight.new_tensor(WEIGHT_SUMS) @ weight.reshape(-1, 3).T
    return sums.view(6, *weight.shape[:2])


def _fours(value: Tensor) -> Tensor:
    """(B, T, I) -> (B, n, 4, I), n = ceil(T / 4), with zeros behind."""
    padded = F.pad(value, (0, 0, 0, -value.shape[1] % 4))
    return padded.reshape(len(value), -1, 4, value.shape[2])


def _input_sums(value: Tensor) -> Tensor:
    """(B, T, I) -> (6, B * n, I): sums of x0 to x5, of which x1 to x4 are the four's own inputs."""
    fours = _fours(value)
    x1, x2, x3, x4 = fours.unbind(2)
    made = value.new_empty(6, *x1.shape)
    torch.sub(x4, x2, alpha=5, out=made[0])[:, 1:].add_(x4[:, :-1], alpha=4)
    even, odd = torch.sub(x4, x2, alpha=4), torch.sub(x3, x1, alpha=4)
    torch.add(even, odd, out=made[1])
    torch.sub(even, odd, out=made[2])
    torch.sub(x4, x2, out=even)
    torch.sub(x3, x1, out=odd)
    torch.add(even, odd, alpha=2, out=made[3])
    torch.sub(even, odd, alpha=2, out=made[4])
    torch.mul(x3, -5, out=made[5]).add_(x1, alpha=4)[:, :-1].add_(x1[:, 1:])
    return made.flatten(1, 2)


def _value_gradient(sums: Tensor) -> Tensor:
    """(6, B, n, I) of the six sums -> (B, n, 4, I) of the inputs."""
    s0, s1, s2, s3, s4, s5 = sums
    near, nearer = s1 + s2, s2 - s1
    far, farther = s3 + s4, s4 - s3
    made = sums.new_empty(*s0.shape[:2], 4, s0.shape[2])
    x1, x2, x3, x4 = made.unbind(2)
    torch.add(nearer, s5, out=x1).mul_(2).add_(farther).mul_(2)[:, 1:].add_(s5[:, :-1])
    torch.add(far, s0, alpha=5, out=x2).add_(near, alpha=4).neg_()
    torch.add(nearer, farther, alpha=2, out=x3).add_(s5, alpha=5).neg_()
    torch.add(near, far, out=x4).add_(s0)[:, :-1].add_(s0[:, 1:], alpha=4)
    return made


def _outputs(products: Tensor) -> Tensor:
    """(6, B, n, O) -> (B, n, 4, O)."""
    p0, p1, p2, p3, p4, p5 = products
    near, nearer = p1 + p2, p1 - p2
    far, farther = p3 + p4, p3 - p4
    made = products.new_empty(*p0.shape[:2], 4, p0.shape[2])
    torch.add(near, far, out=made[:, :, 0]).add_(p0)
    torch.add(nearer, farther, alpha=2, out=made[:, :, 1])
    torch.add(near, far, alpha=4, out=made[:, :, 2])
    torch.add(nearer, farther, alpha=8, out=made[:, :, 3]).add_(p5)
    return made


def _products_gradient(grad: Tensor) -> Tensor:
    """(B, T, O) of the outputs -> (6, B * n, O) of the products."""
    g0, g1, g2, g3 = _fours(grad).unbind(2)
    made = grad.new_empty(6, *g0.shape)
    made[0], made[5] = g0, g3
    even, odd = g0 + g2, g1 + g3
    torch.add(even, odd, out=made[1])
    torch.sub(even, odd, out=made[2])
    torch.add(g0, g2, alpha=4, out=even)
    torch.add(g1, g3, alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=made[3])
    torch.sub(even, odd, alpha=2, out=made[4])
    return made.flatten(1, 2)
