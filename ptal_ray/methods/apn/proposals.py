"""Proposals: pairs of candidate boundaries, and the features sampled in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ptal_ray.methods.apn.params import LOWEST_PEAK

MOST_BOUNDARIES = 256  # number of candidate starts, and of ends, per video that are paired


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The best pairs of a batch, by p_s * p_e descending; each tensor is (B, K).

    Args:
        start_t, end_t: snippets; the boundaries are the centres of these cells.
        start_score, end_score: p_s and p_e there.
        start_height, end_height: the same divided by the video's maximum; 1 at peaks, at the first
            and at the last snippet, which are candidates at any threshold.
        valid: False on padding.
    """

    start_t: Tensor
    end_t: Tensor
    start_score: Tensor
    end_score: Tensor
    start_height: Tensor
    end_height: Tensor
    valid: Tensor


def candidate_height(score: Tensor, mask: Tensor) -> Tensor:
    """(B, T) height relative to the maximum; 1 if a snippet is a candidate at any threshold.

    Strict local maxima, the first and the last snippet always are; others if their height exceeds
    the peak threshold.

    Source: BSN's proposal generation; golden bsn/pgm_proposals.
    """
    score = score.masked_fill(~mask, -1.0)
    inner = torch.zeros_like(mask)
    inner[:, 1:-1] = (score[:, 1:-1] > score[:, :-2]) & (score[:, 1:-1] > score[:, 2:])
    last = mask.sum(dim=1, keepdim=True) - 1
    t = torch.arange(mask.shape[1], device=mask.device)
    always = (inner & (t < last)) | (t == 0) | (t == last)
    height = score / score.amax(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.where(mask, torch.where(always, 1.0, height), -1.0)


def pair_candidates(
    start_score: Tensor,
    end_score: Tensor,
    mask: Tensor,
    *,
    min_duration_t: int,
    max_duration_t: Tensor | float,
    top: int,
    threshold: float = LOWEST_PEAK,
) -> Candidates:
    """The `top` best pairs of candidate boundaries with a duration in the allowed range.

    Args:
        start_score, end_score: (B, T) p_s and p_e.
        mask: (B, T).
        min_duration_t, max_duration_t: d_min and d_max in snippets, both included.
        top: K.
        threshold: peak threshold.

    Deviation: at most MOST_BOUNDARIES starts and MOST_BOUNDARIES ends of a video are paired.
    """
    first = _best(start_score, mask, threshold)
    last = _best(end_score, mask, threshold)
    duration = last[0][:, None] - first[0][:, :, None]  # (B, M, M)
    product = first[1][:, :, None] * last[1][:, None]
    allowed = (duration >= max(min_duration_t, 1)) & (duration <= max_duration_t)
    allowed &= first[3][:, :, None] & last[3][:, None]
    flat = torch.where(allowed, product, -1.0).flatten(1)
    top = min(top, flat.shape[1])
    best, index = flat.topk(top, dim=1)
    rows, columns = index // last[0].shape[1], index % last[0].shape[1]
    return Candidates(
        start_t=first[0].gather(1, rows),
        end_t=last[0].gather(1, columns),
        start_score=first[1].gather(1, rows),
        end_score=last[1].gather(1, columns),
        start_height=first[2].gather(1, rows),
        end_height=last[2].gather(1, columns),
        valid=best >= 0,
    )


def with_whole_videos(
    found: Candidates, start_score: Tensor, end_score: Tensor, mask: Tensor
) -> Candidates:
    """The candidates, where a video without any has itself.

    Args:
        found: of B videos.
        start_score, end_score: (B, T) p_s and p_e.
        mask: (B, T).
    """
    empty = ~found.valid.any(dim=1)
    first = torch.zeros_like(found.start_t)
    first[:, 0] = 1
    put = empty[:, None] & (first > 0)
    last = mask.sum(dim=1, keepdim=True) - 1
    return Candidates(
        start_t=torch.where(put, 0, found.start_t),
        end_t=torch.where(put, last, found.end_t),
        start_score=torch.where(put, start_score[:, :1], found.start_score),
        end_score=torch.where(put, end_score.gather(1, last), found.end_score),
        start_height=torch.where(put, 1.0, found.start_height),
        end_height=torch.where(put, 1.0, found.end_height),
        valid=found.valid | put,
    )


def edges(start_t: Any, end_t: Any) -> tuple[Any, Any]:
    """Edges of proposals in snippets: the centres of their cells, or one whole cell.

    Args:
        start_t, end_t: int tensors or arrays of one shape; equal only in a video of one snippet.
    """
    inset = 0.5 * (start_t < end_t)
    return start_t + inset, end_t + 1 - inset


def _best(score: Tensor, mask: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Snippet, score, height and validity of the best candidates, each (B, M), by snippet."""
    height = candidate_height(score, mask)
    ranked = torch.where((height >= 1) | (height > threshold), score, -1.0)
    value, snippet = ranked.topk(min(MOST_BOUNDARIES, score.shape[1]), dim=1)
    snippet, order = snippet.sort(dim=1)  # then earlier snippets win ties of a product
    value = value.gather(1, order)
    return snippet, value, height.gather(1, snippet), value >= 0


def sample_features(
    features: Tensor, start: Tensor, end: Tensor, num: int, context: float
) -> Tensor:
    """Linear interpolation at `num` evenly spaced moments of each proposal and its context.

    Args:
        features: (B, T, D); zero after the end of a video. Snippet t has its centre at t + 0.5.
        start, end: (B, K) edges in snippets.
        num: N samples on [start - context * d, end + context * d].
        context: fraction of the duration d added on either side.

    Returns:
        (B, K, N, D); zero outside the video.
    """
    batch, length, dim = features.shape
    reach = context * (end - start)
    step = torch.linspace(0, 1, num, device=features.device)
    moment = (start - reach)[..., None] + step * (end - start + 2 * reach)[..., None]  # (B, K, N)
    position = moment - 0.5
    left = position.floor()
    weight = (position - left)[..., None].to(features.dtype)
    padded = torch.nn.functional.pad(features, (0, 0, 1, 1)).reshape(-1, dim)
    base = torch.arange(batch, device=features.device)[:, None, None] * (length + 2)
    index = base + (left.long() + 1).clamp(0, length + 1)
    following = base + (left.long() + 2).clamp(0, length + 1)
    shape = (*index.shape, dim)
    before = padded.index_select(0, index.flatten()).view(shape)
    after = padded.index_select(0, following.flatten()).view(shape)
    return torch.lerp(before, after, weight)
