"""ActionFormer: a pyramid of local-window transformers with heads for classes and edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.snippet_stride import check_snippets
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods.apl import external
from ptal_ray.methods.apl.actionformer_params import ActionFormerTrain
from ptal_ray.ops.pyramid import (
    PRIOR,
    ConvStack,
    MaskedConv,
    Pyramid,
    TransformerBlock,
    joined,
    level_masks,
    padded,
    separated,
)

# predictions of each head, with the initial logit
QUALITY_BIAS = {"tiou": [1.0], "diou": [1.0], "both": [1.0, -3.0]}


@dataclass(frozen=True, kw_only=True)
class Output:
    """The outputs of the detector at all positions, levels concatenated, N = sum of T_l.

    Args:
        logit: (B, N, C) of the classes.
        edges: (B, N, 2) distances to start and end, 0 or more, in positions of the level.
        quality: (B, N, 1) tIoU, or tIoU - tND, or (B, N, 2) tIoU and tND, in [0, 1]; or None.
        mask: (B, N) bool.
        levels: (B, T_l, H) of each level, normalised.
        sizes: T_l.
    """

    logit: Tensor
    edges: Tensor
    quality: Tensor | None
    mask: Tensor
    levels: list[Tensor]
    sizes: list[int]


class ActionFormer(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: ActionFormerTrain.

    Source: ActionFormer code; golden actionformer/tiny_model.
    """

    positives: Tensor

    def __init__(self, feature_dim: int, num_classes: int, hp: ActionFormerTrain) -> None:
        super().__init__()
        self.levels_above, self.drop_path, self.positions = hp.levels, hp.drop_path, hp.positions
        strides = [1] * hp.stem + [2] * hp.levels
        blocks = [TransformerBlock(hp.width, hp.heads, hp.window, stride) for stride in strides]
        self.pyramid = Pyramid(feature_dim, hp.width, blocks, hp.recompute, hp.stem)
        self.class_tower = ConvStack(hp.width, hp.width)
        self.class_head = MaskedConv(hp.width, num_classes, bias=True)
        self.edge_tower = ConvStack(hp.width, hp.width)
        self.edge_head = MaskedConv(hp.width, 2, bias=True)
        self.edge_scale = nn.Parameter(torch.ones(hp.levels + 1))
        start = QUALITY_BIAS.get(hp.alqa, [])
        self.quality_head = MaskedConv(hp.width, len(start), bias=True) if start else None
        _fill_bias(self.class_head, [math.log(PRIOR / (1 - PRIOR))] * num_classes)
        if self.quality_head is not None:
            _fill_bias(self.quality_head, start)
        # running averages of positives of labelled and of unlabelled videos, over all workers
        self.register_buffer("positives", torch.full((2,), float(hp.first_positives)))

    def forward(self, features: Tensor, mask: Tensor, kept: Tensor | None = None) -> Output:
        """(B, T, D) -> outputs of all positions.

        Args:
            features: zero on padding; T a multiple of 2^levels.
            mask: (B, T) bool.
            kept: (B, branches) factors: 0 for a branch dropped by drop-path.
        """
        if kept is None:
            kept = features.new_ones((len(features), self.pyramid.branches))
        levels, masks = self.represent(features, mask, kept)
        value, own, gaps = joined(levels, masks)
        tower = self.edge_tower(value, own, gaps)
        rated = self.class_tower(value, own, gaps)
        logits = separated(self.class_head(rated, own).float(), masks)
        edges = separated(self.edge_head(tower, own).float(), masks)
        scaled = [scale * edge for scale, edge in zip(self.edge_scale, edges, strict=True)]
        quality = None
        if self.quality_head is not None:
            found = torch.sigmoid(self.quality_head(tower, own).float())
            quality = torch.cat(separated(found, masks), dim=1)
        return Output(
            logit=torch.cat(logits, dim=1),
            edges=F.relu(torch.cat(scaled, dim=1)),
            quality=quality,
            mask=torch.cat(masks, dim=1),
            levels=levels,
            sizes=[own.shape[1] for own in masks],
        )

    def represent(
        self, features: Tensor, mask: Tensor, kept: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The levels of the pyramid and their masks, see `forward`."""
        masks = level_masks(mask, self.levels_above)
        return self.pyramid(features, masks, kept, sinusoids if self.positions else None), masks

    def padded(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both with padding at the end, so that the end of no video depends on other videos."""
        return padded(features, mask, self.levels_above)


def _fill_bias(head: MaskedConv, values: list[float]) -> None:
    assert head.conv.bias is not None
    with torch.no_grad():
        head.conv.bias.copy_(torch.tensor(values))


def sinusoids(value: Tensor) -> Tensor:
    """(T, H) codes of the position for (B, T, H), divided by sqrt(H).

    Source: ActionFormer code (Vaswani et al., 2017).
    """
    length, width = value.shape[1:]
    t = torch.arange(length, device=value.device, dtype=torch.float32)[:, None]
    rate = 10000 ** (-(torch.arange(width, device=value.device) // 2 * 2) / width)
    even: Tensor = torch.arange(width, device=value.device) % 2 == 0
    codes: Tensor = torch.where(even, torch.sin(t * rate), torch.cos(t * rate)) / width**0.5
    return codes


def class_scores(output: Output, floor: float) -> Tensor:
    """(B, N, C) class scores, times the quality of the edges if predicted.

    Source: APL Eq. 4.
    """
    score = torch.sigmoid(output.logit)
    if output.quality is None:
        return score
    joint: Tensor = score * joint_quality(output.quality, floor)[..., None]
    return joint


def joint_quality(quality: Tensor, floor: float) -> Tensor:
    """(..., 1) or (..., 2) -> (...): the first value minus the second, if any; at least `floor`."""
    first = quality[..., 0]
    return (first - quality[..., 1] if quality.shape[-1] > 1 else first).clamp(min=floor)


def check(store: FeatureStore, hp: ActionFormerTrain) -> None:
    """Check that the network can be built.

    Raises:
        ConfigError: the heads do not divide the channels, or external scores leak labels.
        DataError: external scores cannot be read, or snippets have another stride.
    """
    external.check(store, hp)
    check_snippets(store, hp)
    if hp.width % hp.heads:
        raise ConfigError(
            f"train.width: {hp.width} does not divide among {hp.heads} heads; choose a multiple"
        )


def build(store: FeatureStore, hp: ActionFormerTrain) -> ActionFormer:
    """The network for a dataset; raises as `check`."""
    check(store, hp)
    return ActionFormer(store.info.feature_dim, store.info.num_classes, hp)
