"""Action-aware contrast of snippets in a video and of classes in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.apl.apl_params import AplStages
from ptal_ray.methods.method import Pseudo, Step

ROUNDS = 10  # of k-means
SMALL = 1e-6  # instead of a number of videos that is 0


def snippets(length: Tensor, number: int, draw: Tensor) -> tuple[Tensor, Tensor]:
    """One random snippet of each of `number` equal parts of a video, fewer in a shorter one.

    Args:
        length: (B,) snippets of each video.
        number: N.
        draw: (B, N) uniform in [0, 1).

    Returns:
        (B, N) int64 positions, and (B, N) bool, whether they count.
    """
    parts = length.clamp(max=number)[:, None]
    index = torch.arange(number, device=length.device)[None]
    at = torch.floor((index + draw) * length[:, None] / parts).long()
    return torch.minimum(at, length[:, None] - 1), index < parts


def representation(levels: list[Tensor], at: Tensor) -> Tensor:
    """(B, N, levels * H) features of all levels at the snippets `at`, of norm 1.

    Args:
        levels: (B, T_l, H), level l with a position every 2^l snippets.
        at: (B, N) snippets.
    """
    rows = torch.arange(len(at), device=at.device)[:, None]
    found = [value[rows, at // 2**level] for level, value in enumerate(levels)]
    return F.normalize(torch.cat(found, dim=2).float(), dim=2)


def kmeans(value: Tensor, counted: Tensor, clusters: int, draw: Tensor) -> Tensor:
    """(G, M) cluster of each of the (G, M, D) points, by k-means++ and Lloyd's rounds.

    Args:
        counted: (G, M) bool, points to cluster.
        clusters: k.
        draw: (G, k) uniform in [0, 1), one for each initial centre.

    Empty clusters get the points that are farthest from their centres.
    """
    centres = _first_centres(value, counted, clusters, draw)
    for _ in range(ROUNDS):
        distance = torch.cdist(value, centres)
        share = F.one_hot(distance.argmin(dim=2), clusters) * counted[..., None]
        share = share.to(value)
        number = share.sum(dim=1)
        mean = share.mT @ value / number.clamp(min=1)[..., None]
        apart = distance.amin(dim=2).masked_fill(~counted, -1.0)
        order = apart.argsort(dim=1, descending=True)[:, :clusters]
        order = F.pad(order, (0, clusters - order.shape[1]))
        far = value.gather(1, order[..., None].expand(-1, -1, value.shape[2]))
        centres = torch.where((number > 0)[..., None], mean, far)
    return torch.cdist(value, centres).argmin(dim=2)


def _first_centres(value: Tensor, counted: Tensor, clusters: int, draw: Tensor) -> Tensor:
    """(G, k, D) points, drawn with probabilities proportional to the squared distance to earlier
    ones."""
    chance = counted.to(value)
    rows = torch.arange(len(value), device=value.device)
    centres: list[Tensor] = []
    for k in range(clusters):
        total = chance.cumsum(dim=1)
        pick = torch.searchsorted(total, draw[:, k : k + 1] * total[:, -1:], right=True)
        centres.append(value[rows, pick[:, 0].clamp(max=value.shape[1] - 1)])
        distance = torch.cdist(value, torch.stack(centres, dim=1)).amin(dim=2)
        chance = distance.square() * counted
    return torch.stack(centres, dim=1)


def contrast(value: Tensor, cluster: Tensor, temperature: float) -> Tensor:
    """(G,) mean over ordered pairs of one cluster of -log(e_ij / (e_ij + sum_n e_in)).

    Args:
        value: (G, M, H) of unit length.
        cluster: (G, M) int64, -1 for points that do not count.
        temperature: zeta; e = exp(cosine / zeta), n runs over the other clusters.

    Returns:
        0 with only one cluster.

    Source: APL Eq. 11.
    """
    cosine = value @ value.mT / temperature
    real = cluster >= 0
    both = real[:, :, None] & real[:, None]
    alike = cluster[:, :, None] == cluster[:, None]
    other = both & ~alike
    themselves = torch.eye(value.shape[1], dtype=torch.bool, device=value.device)
    pair = both & alike & ~themselves & other.any(dim=2, keepdim=True)
    against = cosine.masked_fill(~other, -torch.inf)
    against = torch.where(other.any(dim=2, keepdim=True), against, 0.0).logsumexp(dim=2)
    each = F.softplus(against[:, :, None] - cosine)
    number = pair.sum(dim=(1, 2)).clamp(min=1)
    total: Tensor = torch.where(pair, each, 0.0).sum(dim=(1, 2)) / number
    return total


def snippet_classes(instances: Pseudo, at: Tensor) -> Tensor:
    """(B, N) class of the shortest instance over each snippet; -1 on background, -2 if ignored.

    Args:
        instances: of the crops, see `instances.cropped`.
        at: (B, N) snippets.
    """
    start, end = instances["start_t"][:, None], instances["end_t"][:, None]
    over = (at[..., None] >= start) & (at[..., None] <= end)
    over &= (instances["label"] >= 0)[:, None]
    taught = over & ~instances["ignored"][:, None]
    length = torch.where(taught, end - start, torch.inf)
    label = instances["label"].gather(1, length.argmin(dim=2))
    label = torch.where(taught.any(dim=2), label, -1)
    unsure = over.any(dim=2) & ~taught.any(dim=2)
    return label.masked_fill(unsure, -2)


def batch_contrast(
    levels: list[Tensor],
    features: Tensor,
    length: Tensor,
    instances: Pseudo | None,
    hp: AplStages,
    step: Step,
    kinds: Sequence[tuple[Tensor, float]] = (),
) -> Tensor:
    """The coarse contrast of each video, averaged, plus the fine one of the whole batch.

    Videos of several kinds are contrasted separately, each kind with its own weight.

    Args:
        levels: (B, T_l, H).
        features: (B, T, D) input features.
        length: (B,) snippets.
        instances: of the crops; None to cluster the features instead.
        hp: train parameters.
        step: of the trial; the fine contrast spans all its workers.
        kinds: (B,) bool videos of each kind, and its weight; () for one kind of weight 1.

    Source: APL Eq. 11 and 12.
    """
    size = len(features)
    at, counted = snippets(length, hp.sampled, step.rand(size, hp.sampled))
    rows = torch.arange(size, device=at.device)[:, None]
    value, raw = representation(levels, at), features[rows, at]
    every, real = step.every_row(value), step.every_row(counted.long()) > 0
    if instances is None:
        coarse = kmeans(raw, counted, 2, step.rand(size, 2))
        draw = torch.rand((1, hp.clusters), generator=step.generator, device=at.device)
        joined = step.every_row(raw).flatten(0, 1)[None]
        fine = kmeans(joined, real.flatten()[None], hp.clusters, draw)
    else:
        found = snippet_classes(instances, at)
        counted = counted & (found >= -1)
        coarse = (found >= 0).long()
        fine = step.every_row(found + 1).flatten()[None]
    total = value.new_zeros(())
    for chosen, weight in kinds or [(torch.ones_like(length, dtype=torch.bool), 1.0)]:
        own = counted & chosen[:, None]
        if hp.contrast in ("coarse", "both"):
            each = contrast(value, coarse.masked_fill(~own, -1), hp.temperature)
            number = step.mean_over_workers(chosen.sum(dtype=torch.float32)).clamp(min=SMALL)
            total = total + weight * (each * chosen).sum() / number
        if hp.contrast in ("fine", "both"):
            apart = step.every_row(own.long()).flatten()[None] > 0
            part = fine.masked_fill(~apart, -1)
            total = total + weight * contrast(every.flatten(0, 1)[None], part, hp.temperature).sum()
    return total
