"""Fine-grained contrast among starts, among ends, and of both with background."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12  # squared norm below which a vector has no direction


def contrast_loss(
    embedding: Tensor,
    mask: Tensor,
    start_t: Tensor,
    end_t: Tensor,
    label: Tensor,
    background_start_t: Tensor,
    background_end_t: Tensor,
    *,
    tau: float,
    context_ratio: float,
) -> tuple[Tensor, Tensor]:
    """The sum of the contrastive terms of a batch, and their number.

    Args:
        embedding: (B, T, D).
        mask: (B, T), True on real snippets, which come first.
        start_t, end_t: (B, P) action instances, both ends included; -1 for none.
        label: (B, P, C) multi-hot; an instance with several classes has a term for each, one
            without a class has none.
        background_start_t, background_end_t: (B, Q) background instances, -1 for none.
        tau: temperature.
        context_ratio: a boundary region extends by this fraction of the instance's length, rounded
            to snippets, to either side of the first or last snippet.

    Returns:
        0-d sum over instances, classes and both boundaries, and 0-d number of terms. Classes with
        one instance in a video, and videos without background, have no terms.

    Source: APN Eq. 1 and 2; normalised features are PROPOSED.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        x = embedding if embedding.dtype == torch.float64 else embedding.float()
        reach = torch.floor(context_ratio * (end_t + 1 - start_t).double() + 0.5).long()
        present = start_t >= 0
        label = label * present[..., None]
        first = torch.cat([start_t - reach, end_t - reach, background_start_t], dim=1)
        last = torch.cat([start_t + reach, end_t + reach, background_end_t], dim=1)
        exists = torch.cat([present, present, background_start_t >= 0], dim=1)
        vectors = _directions(x, mask, first, last, exists)
        size = start_t.shape[1]
        starts, ends = vectors[:, :size], vectors[:, size : 2 * size]
        background, against = vectors[:, 2 * size :], exists[:, 2 * size :]
        several = label.sum(dim=1, keepdim=True) >= 2  # (B, 1, C)
        counted = (label > 0) & several & against.any(dim=1)[:, None, None]
        total = _terms(starts, background, against, label, counted, tau)
        total = total + _terms(ends, background, against, label, counted, tau)
        return total.to(x.dtype), 2 * counted.sum().to(x.dtype)


def _directions(x: Tensor, mask: Tensor, first: Tensor, last: Tensor, exists: Tensor) -> Tensor:
    """(B, R, D): mean of the real snippets first..last, of norm 1; zero without any or without
    norm."""
    t = torch.arange(x.shape[1], device=x.device)
    inside = (t >= first[..., None]) & (t <= last[..., None])  # (B, R, T)
    inside = inside & exists[..., None] & mask[:, None]
    # Unlike prefix sums, a product with a 0-1 matrix is exact for short means in long videos.
    weight = inside.to(x.dtype) / inside.sum(dim=2, keepdim=True).clamp(min=1)
    mean = weight @ x
    square = (mean * mean).sum(dim=2, keepdim=True)
    return mean * torch.rsqrt(torch.where(square > TINY, square, 1.0))


def _terms(
    vectors: Tensor, background: Tensor, against: Tensor, label: Tensor, counted: Tensor, tau: float
) -> Tensor:
    """Sum of -log(same / (same + other)) over the counted (B, P, C) instances and classes."""
    # Double precision holds exp(+-1 / tau) for every temperature in use.
    similar = torch.exp((vectors @ vectors.mT).double() / tau)  # (B, P, P)
    itself = torch.eye(vectors.shape[1], device=vectors.device, dtype=torch.bool)
    same = similar.masked_fill(itself, 0) @ label.double()  # (B, P, C)
    distinct = torch.exp((vectors @ background.mT).double() / tau) * against[:, None]
    other = distinct.sum(dim=2, keepdim=True)  # (B, P, 1)
    ratio = torch.where(counted, other, 0.0) / torch.where(counted, same, 1.0)
    return torch.log1p(ratio).sum()
