"""Fine-grained contrast of starts with starts, of ends with ends, and of both with background."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """Summed contrastive terms of a batch, and how many there are.

    Args:
        embedding: (B, T, D).
        mask: (B, T).
        start_t, end_t: (B, P) action instances, both ends included; rows without a label are
            ignored.
        label: (B, P, C) multi-hot; an instance of several classes has a term in each.
        background_start_t, background_end_t: (B, Q) background instances, -1 where none.
        tau: temperature.
        context_ratio: a boundary region reaches this share of the instance's length either way.

    Returns:
        (0-d sum, 0-d number). Classes with one instance in a video, and videos without
        background, have no terms.

    Source: APN Eq. 9; normalised features are PROPOSED.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        length = mask.sum(dim=1)[:, None]
        # One zero row in front turns sums over a span into a difference of two rows.
        total = F.pad(embedding.float().cumsum(dim=1), (0, 0, 1, 0))
        reach = context_ratio * (end_t + 1 - start_t)
        has_background = background_start_t >= 0  # (B, Q)
        background = _mean(total, background_start_t.clamp(min=0), background_end_t + 1)
        loss, number = embedding.new_zeros(()), embedding.new_zeros(())
        for edge in (start_t, end_t + 1):
            low = torch.round(edge - reach).long().clamp(min=0)
            low = torch.minimum(low, length - 1).clamp(min=0)
            high = torch.maximum(torch.round(edge + reach).long(), low + 1)
            vectors = _mean(total, low, torch.minimum(high, length.clamp(min=1)))
            side, count = _terms(vectors, background, has_background, label.float(), tau)
            loss, number = loss + side, number + count
        return loss, number


def _mean(total: Tensor, first: Tensor, behind: Tensor) -> Tensor:
    """(B, K, D) normalised means of the snippets [first, behind)."""

    def row(index: Tensor) -> Tensor:
        return total.gather(1, index[..., None].expand(-1, -1, total.shape[-1]))

    count = (behind - first).clamp(min=1)[..., None]
    return F.normalize((row(behind) - row(first)) / count, dim=-1)


def _terms(
    vectors: Tensor, background: Tensor, has_background: Tensor, label: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """Sum and number of -log(same / (same + other)) over instances and their classes."""
    similar = torch.exp(vectors @ vectors.mT / tau)  # (B, P, P)
    itself = torch.eye(vectors.shape[1], device=vectors.device, dtype=torch.bool)
    same = similar.masked_fill(itself, 0) @ label  # (B, P, C)
    against = torch.exp(vectors @ background.mT / tau) * has_background[:, None]
    other = against.sum(dim=2, keepdim=True)  # (B, P, 1)
    several = label.sum(dim=1, keepdim=True) >= 2
    term = (label > 0) & several & has_background.any(dim=1)[:, None, None]
    share = torch.where(term, same, 1.0) / torch.where(term, same + other, 1.0)
    return -torch.log(share).sum(), term.sum().to(share.dtype)
