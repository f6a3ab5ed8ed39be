"""ActionFormer as its paper reads, without any of our shortcuts: to compare results and time.

One video after the other for labels and decoding, one level after the other for the heads, each
query's window gathered before attention, suppression pick by pick over arrays. Weights are those of
our module, so that both give the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.apl.actionformer_network import ActionFormer


def conv(own: Any, value: Tensor, mask: Tensor) -> Tensor:
    """A convolution over time, channels behind time again, zero on padding."""
    return own.conv(value.mT).mT * mask[..., None]


def tower(own: Any, value: Tensor, mask: Tensor) -> Tensor:
    """Convolutions, each with a norm and a ReLU."""
    for layer, norm in zip(own.convs, own.norms, strict=True):
        value = F.relu(norm(conv(layer, value, mask)))
    return value


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, reach: int) -> Tensor:
    """(B, T, h, d) -> (B, T, h, d), with every position's window of keys gathered."""
    size = query.shape[3]
    window = 2 * reach + 1

    def gathered(item: Tensor) -> Tensor:  # (B, T, h, d, w)
        return F.pad(item, (0, 0, 0, 0, reach, reach)).unfold(1, window, 1)

    real = F.pad(mask, (reach, reach)).unfold(1, window, 1)  # (B, T, w)
    itself = torch.zeros(window, dtype=torch.bool)
    itself[reach] = True
    weight = torch.einsum("bthd,bthdw->bthw", query, gathered(key)) / size**0.5
    weight = weight.masked_fill(~(real | itself)[:, :, None], -torch.inf).softmax(dim=3)
    return torch.einsum("bthw,bthdw->bthd", weight, gathered(value))


def block(own: Any, value: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    """A transformer block of ours, layer after layer."""
    layers = own.attention
    normed = own.norm1(value)
    parts = [
        linear(norm(conv(layer, normed, mask))).unflatten(2, (layers.heads, -1))
        for layer, norm, linear in zip(layers.convs, layers.norms, layers.inputs, strict=True)
    ]
    made = layers.output(attention(*parts, mask, layers.reach).flatten(2)) * mask[..., None]
    skip = F.max_pool1d(value.mT, 3, stride=2, padding=1).mT if own.stride > 1 else value
    value = skip * mask[..., None] + made * own.scale1 * kept[:, :1, None]
    branch = own.feed_forward(own.norm2(value)) * mask[..., None]
    return value + branch * own.scale2 * kept[:, 1:, None]


def forward(
    model: ActionFormer, features: Tensor, mask: Tensor, kept: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Class logits and edges of each level, and the masks of the levels."""
    pyramid = model.pyramid
    value = tower(pyramid.embedding, features, mask)
    masks = [mask[:, :: 2**level] for level in range(model.levels_above + 1)]
    levels = []
    for k, own in enumerate(pyramid.blocks):
        level = max(k - pyramid.stem + 1, 0)
        value = block(own, value, masks[level], kept[:, 2 * k : 2 * k + 2])
        if k >= pyramid.stem - 1:
            levels.append(pyramid.norms[k - pyramid.stem + 1](value))
    logits, edges = [], []
    for level, (value, own_mask) in enumerate(zip(levels, masks, strict=True)):
        rated = tower(model.class_tower, value, own_mask)
        logits.append(conv(model.class_head, rated, own_mask))
        edge = conv(model.edge_head, tower(model.edge_tower, value, own_mask), own_mask)
        edges.append(F.relu(edge * model.edge_scale[level]))
    return logits, edges, masks


def video_targets(
    sizes: list[int], start: Tensor, end: Tensor, label: Tensor, classes: int, hp: Any
) -> tuple[Tensor, Tensor]:
    """(N, C) classes and (N, 2) edges of one video, level after level."""
    every_label, every_edge = [], []
    for level, size in enumerate(sizes):
        stride = 2.0**level
        low = hp.first_range * stride / 2 if level else 0.0
        high = hp.first_range * stride if level < len(sizes) - 1 else 10000.0
        t = torch.arange(size)[:, None] * stride
        left, right = t - start[None], end[None] - t
        centre = (start + end)[None] / 2
        inner = torch.minimum(
            t - torch.maximum(centre - hp.center_radius * stride, start[None]),
            torch.minimum(centre + hp.center_radius * stride, end[None]) - t,
        )
        farther = torch.maximum(left, right)
        within = (inner > 0) & (farther >= low) & (farther <= high)
        length = (end - start)[None].repeat(size, 1).masked_fill(~within, torch.inf)
        least, index = length.min(dim=1)
        chosen = ((length <= least[:, None] + 1e-3) & within).float()
        every_label.append((chosen @ F.one_hot(label, classes).float()).clamp(max=1))
        edge = torch.stack([left, right], dim=2)[torch.arange(size), index]
        every_edge.append(edge / stride)
    return torch.cat(every_label), torch.cat(every_edge)


def losses(
    model: ActionFormer,
    features: Tensor,
    mask: Tensor,
    kept: Tensor,
    videos: list[tuple[Tensor, Tensor, Tensor]],
    hp: Any,
) -> tuple[Tensor, Tensor]:
    """The focal and the DIoU loss of a batch.

    Args:
        videos: of each video starts and ends in positions, and classes.
    """
    logits, edges, masks = forward(model, features, mask, kept)
    logit, edge, real = (torch.cat(v, dim=1) for v in (logits, edges, masks))
    sizes = [m.shape[1] for m in masks]
    made = [video_targets(sizes, *own, logit.shape[2], hp) for own in videos]
    label, target = (torch.stack(v) for v in zip(*made, strict=True))
    positive = (label.sum(dim=2) > 0) & real
    normaliser = 0.9 * model.positives[0] + 0.1 * max(int(positive.sum()), 1)
    own = logit[real]
    score, taught = torch.sigmoid(own), label[real]
    cross = F.binary_cross_entropy_with_logits(own, taught, reduction="none")
    right = score * taught + (1 - score) * (1 - taught)
    focal = (cross * (1 - right) ** 2 * (0.25 * taught + 0.75 * (1 - taught))).sum()
    a, b = edge[positive], target[positive]
    shared = torch.minimum(a, b).sum(dim=1)
    union = a.sum(dim=1) + b.sum(dim=1) - shared
    whole = torch.maximum(a, b).sum(dim=1)
    apart = 0.5 * (a[:, 1] - a[:, 0] - b[:, 1] + b[:, 0])
    regressed = (1 - shared / union.clamp(min=1e-8) + (apart / whole.clamp(min=1e-8)) ** 2).sum()
    return focal / normaliser, hp.regression_weight * regressed / normaliser


def detections(
    logits: list[Tensor], edges: list[Tensor], masks: list[Tensor], hp: Any
) -> list[tuple[float, float, float, int]]:
    """Start, end, score and class of one video's detections, best first, in positions."""
    found = []
    for level, (logit, edge, mask) in enumerate(zip(logits, edges, masks, strict=True)):
        score = (torch.sigmoid(logit) * mask[:, None]).flatten()
        index = (score > hp.score_floor).nonzero()[:, 0]
        order = score[index].argsort(descending=True, stable=True)[: hp.candidates]
        index = index[order]
        position, label = index // logit.shape[1], index % logit.shape[1]
        t, own = position * 2.0**level, edge[position] * 2.0**level
        start, end = t - own[:, 0], t + own[:, 1]
        kept = end - start > hp.shortest_t
        columns = (start[kept], end[kept], score[index][kept], label[kept].double())
        found.append(torch.stack([v.double() for v in columns], dim=1))
    every = torch.cat(found).numpy()
    picked = [
        row
        for c in np.unique(every[:, 3])
        for row in soft_suppressed(every[every[:, 3] == c], hp.sigma, hp.min_score, hp.most)
    ]
    picked.sort(key=lambda row: -row[2])
    return [(a, b, s, int(c)) for a, b, s, c in picked[: hp.most]]


def soft_suppressed(
    rows: NDArray[np.float64], sigma: float, least: float, most: int
) -> list[tuple[float, float, float, float]]:
    """Picks the best row again and again, and lowers the scores of those that overlap it."""
    left, picked = rows.copy(), []
    while len(left) and len(picked) < most:
        best = int(left[:, 2].argmax())
        own = left[best].copy()
        picked.append(tuple(own))
        left = np.delete(left, best, axis=0)
        shared = np.minimum(own[1], left[:, 1]) - np.maximum(own[0], left[:, 0])
        shared = np.maximum(shared, 0.0)
        union = (own[1] - own[0]) + (left[:, 1] - left[:, 0]) - shared
        left[:, 2] *= np.exp(-((shared / union) ** 2) / sigma)
        left = left[left[:, 2] >= least]
    return picked  # type: ignore[return-value]
