"""Losses and scores of point-supervised multiple-instance methods, over padded batches.

Per-snippet scores s are (B, T, C + 1), the last channel the background; the fused score of a
class is s (1 - b). All losses are per video, (B,); a method averages them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse(score: Tensor) -> Tensor:
    """(B, T, C + 1) s -> s (1 - b) for the classes, b for the background."""
    background = score[..., -1:]
    return torch.cat([score[..., :-1] * (1 - background), background], dim=-1)


def video_scores(score: Tensor, mask: Tensor, ratio: int, present: Tensor | None = None) -> Tensor:
    """(B, K) mean of the T // ratio highest scores, at least one, of each of K channels.

    Args:
        score: (B, T, K).
        mask: (B, T).
        ratio: r_act.
        present: (B, K); if it is 0 the mean over the whole video is used instead.

    Source: LACP code; golden lacp_model.
    """
    length = mask.sum(dim=1)
    ordered = score.masked_fill(~mask[..., None], 0.0).sort(dim=1, descending=True).values
    total = ordered.cumsum(dim=1)
    number = (length // ratio).clamp(min=1)
    index = (number - 1)[:, None, None].expand(-1, 1, score.shape[2])
    best = total.gather(1, index)[:, 0] / number[:, None]
    if present is None:
        return best
    mean = total[:, -1] / length.clamp(min=1)[:, None]
    return torch.where(present > 0, best, mean)


def cross_entropy(score: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of each entry, its logarithms at least -100 as in PyTorch.

    Unlike PyTorch's, NaN scores give NaN instead of an error, so that a diverged trial ends as one.

    Args:
        score: in [0, 1], after the sigmoid.
        target: in [0, 1], of the same shape.
    """
    return -(target * _log(score) + (1 - target) * _log(1 - score))


def _log(value: Tensor) -> Tensor:
    tiny = torch.finfo(value.dtype).tiny
    return torch.where(value < tiny, -100.0, torch.log(value.clamp(min=tiny)))


def focal_loss(score: Tensor, target: Tensor, chosen: Tensor, gamma: float) -> Tensor:
    """(B,) binary cross entropy weighted by |target - score|^gamma, summed over channels.

    Args:
        score, target: (B, T, K) in [0, 1].
        chosen: (B, T) snippets of the mean; it is 0 without any.
        gamma: focal exponent.

    Source: LACP code; golden lacp_loss.
    """
    weight = (target - score).abs() ** gamma
    weighted = (weight * cross_entropy(score, target)).sum(dim=2) * chosen
    return weighted.sum(dim=1) / chosen.sum(dim=1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of a pseudo-sequence: maximal stretches of action and background of each class.

    Classes that have no transition have no runs. Padding has start -1.

    Args:
        start, end: (B, R) int64 snippets, both included.
        label: (B, R) int64 class.
        action: (B, R) bool, else background.
    """

    start: Tensor
    end: Tensor
    label: Tensor
    action: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, R) bool: which runs exist."""
        return self.start >= 0


def runs_from_actions(start: Tensor, end: Tensor, label: Tensor, length: Tensor) -> Runs:
    """Add the background between, before and after the action runs of each class.

    Args:
        start, end: (B, S) action runs, -1 for none; runs of one class do not touch.
        label: (B, S).
        length: (B,) snippets of each video.

    Returns:
        (B, 3 S): the actions, the background before each, and that after the last of a class.
    """
    valid = start >= 0
    same = (label[:, :, None] == label[:, None]) & valid[:, None] & valid[:, :, None]
    earlier = same & (start[:, None] < start[:, :, None])  # (B, S, S): the second is earlier
    before = torch.where(earlier, end[:, None], -1).amax(dim=2) + 1
    is_last = valid & ~earlier.any(dim=1)
    final = (length - 1)[:, None].expand_as(start)
    whole = valid & (start == 0) & (end == final)
    front = valid & (before < start)
    behind = is_last & (end < final)
    starts = torch.cat([start, before, end + 1], dim=1)
    ends = torch.cat([end, start - 1, final], dim=1)
    exists = torch.cat([valid & ~whole, front, behind], dim=1)
    action = torch.zeros_like(exists)
    action[:, : start.shape[1]] = True
    return Runs(
        start=torch.where(exists, starts, -1),
        end=torch.where(exists, ends, -1),
        label=label.repeat(1, 3).clamp(min=0),
        action=action & exists,
    )


def outer_edges(runs: Runs, length: Tensor, delta: float, clipped: bool) -> tuple[Tensor, Tensor]:
    """(B, R) first and last snippet of the surroundings of each run, the run included.

    They extend to floor(start - delta * len) and floor(end + delta * len), inside the video and, if
    `clipped`, not into the neighbouring run of the same class and kind.

    Source: LACP code; clipped: FS-PTAL Eq. 8 with max for its printed min.
    """
    size = (runs.end - runs.start + 1).double()
    low = torch.floor(runs.start - delta * size).long().clamp(min=0)
    high = torch.floor(runs.end + delta * size).long()
    high = torch.minimum(high, (length - 1)[:, None])
    if clipped:
        before, after = neighbours(runs, length)
        low, high = torch.maximum(low, before + 1), torch.minimum(high, after - 1)
    return low, high


def neighbours(runs: Runs, length: Tensor) -> tuple[Tensor, Tensor]:
    """(B, R) last snippet of the run before and first of the run after, of same class and kind."""
    same = (runs.label[:, :, None] == runs.label[:, None]) & runs.valid[:, None]
    same &= runs.action[:, :, None] == runs.action[:, None]
    earlier = same & (runs.start[:, None] < runs.start[:, :, None])
    later = same & (runs.start[:, None] > runs.start[:, :, None])
    before = torch.where(earlier, runs.end[:, None], -1).amax(dim=2)
    none = length[:, None, None].expand(-1, *later.shape[1:])
    after = torch.where(later, runs.start[:, None], none).amin(dim=2)
    return before, after


def score_contrast(
    score: Tensor, runs: Runs, length: Tensor, delta: float, clipped: bool = False
) -> Tensor:
    """(B, R) outer-inner contrast of each run; background takes 1 - score; 0 on padding.

    Args:
        score: (B, T, C) fused scores.
        runs: their runs.
        length: (B,) snippets of each video.
        delta: width of the surroundings / length of the run.
        clipped: see `outer_edges`.

    Source: LACP code; golden lacp_oic, lacp_loss.
    """
    low, high = outer_edges(runs, length, delta, clipped)
    sums = F.pad(score.double().cumsum(dim=1), (0, 0, 1, 0))  # (B, T + 1, C)
    classes, flat = score.shape[2], sums.flatten(1)

    def until(edge: Tensor) -> Tensor:
        """Cumulative scores up to an edge, of the class of each run."""
        return flat.gather(1, edge.clamp(min=0) * classes + runs.label)

    first, last = until(runs.start), until(runs.end + 1)
    inner = (last - first) / (runs.end - runs.start + 1)
    around = (runs.start - low) + (high - runs.end)
    outer = (first - until(low) + until(high + 1) - last) / around.clamp(min=1)
    inner = torch.where(runs.action, inner, 1 - inner)
    outer = torch.where(runs.action, outer, 1 - outer) * (around > 0)
    return ((inner - outer) * runs.valid).to(score.dtype)


def mean_where(value: Tensor, chosen: Tensor) -> Tensor:
    """(B,) mean of the chosen entries of each row; 0 without any."""
    return (value * chosen).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)


def run_features(features: Tensor, runs: Runs, draw: Tensor) -> Tensor:
    """(B, R, H) mean of one random snippet from each of N equal parts of a run, of norm 1.

    Args:
        features: (B, T, H).
        runs: their runs.
        draw: (B, R, N) uniform in [0, 1).

    Source: LACP code; golden lacp_loss.
    """
    number = draw.shape[2]
    part = torch.arange(number + 1, device=features.device)
    size = (runs.end - runs.start + 1)[..., None]
    edge = runs.start[..., None] + size * part // number
    low, high = edge[..., :-1], torch.maximum(edge[..., 1:], edge[..., :-1] + 1)
    index = (low + (draw * (high - low)).long()).clamp(min=0)
    channels = features.mT  # the layout of a convolution's output: then the gradient needs no copy
    everywhere = index.flatten(1)[:, None].expand(-1, channels.shape[1], -1)
    drawn = channels.gather(2, everywhere).view(*channels.shape[:2], *index.shape[1:]).mean(3)
    return F.normalize(drawn.mT, dim=-1)


def feature_contrast(vector: Tensor, runs: Runs, tau: float, num_classes: int) -> Tensor:
    """(B, C) contrast of the action runs of a class with each other against its background runs.

    -log(sum over other actions exp(f.f' / tau) / sum over all other runs), mean over the action
    runs of the class. NaN for classes with fewer than two.

    Args:
        vector: (B, R, H) of norm 1.
        runs: the runs of the vectors.
        tau: temperature.
        num_classes: C.

    Source: LACP code; golden lacp_loss.
    """
    similar = (vector @ vector.mT).float() / tau
    same = (runs.label[:, :, None] == runs.label[:, None]) & runs.valid[:, None]
    same &= ~torch.eye(same.shape[1], dtype=torch.bool, device=same.device)
    acted = same & runs.action[:, None]
    several = runs.action & acted.any(dim=2)

    def log_sum(partners: Tensor) -> Tensor:
        """(B, R) over the partners of each run; finite, and of no account, without `several`."""
        left_out = several[..., None] & ~partners
        return similar.masked_fill(left_out, -torch.inf).logsumexp(dim=2)

    terms = (log_sum(same) - log_sum(acted)) * several
    shape = (len(vector), num_classes)
    total = torch.zeros(shape, device=vector.device).scatter_add(1, runs.label, terms)
    number = torch.zeros_like(total).scatter_add(1, runs.label, several.float())
    return torch.where(number > 0, total / number.clamp(min=1), torch.nan)
