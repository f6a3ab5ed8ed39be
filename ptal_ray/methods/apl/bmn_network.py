"""The detector BMN: boundary probabilities, and maps with scores of every segment of a grid."""

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
from ptal_ray.methods.apl.bmn_params import BmnTrain
from ptal_ray.ops import mil
from ptal_ray.ops.boundary_matching import BoundaryMatching, cells_on

GROUPS = 4  # of the grouped convolutions
REGRESSION, CLASSIFICATION, TND = 0, 1, 2  # maps
TND_BIAS = -3.0  # then the initial joint score is not at its minimum


@dataclass(frozen=True, kw_only=True)
class BmnOutput:
    """The outputs; all in [0, 1] except the base features, zero on padding.

    Args:
        base: (B, T, H) base features.
        start, end: (B, T) probability of a boundary near the left edge of a snippet.
        maps: (B, M, K) tIoU by regression, tIoU by classification and, if M = 3, tND of cells.
        first, last: (K,) int64 snippets of the cells.
        video: (B, C) classes of the video.
    """

    base: Tensor
    start: Tensor
    end: Tensor
    maps: Tensor
    first: Tensor
    last: Tensor
    video: Tensor

    def inside(self, mask: Tensor) -> Tensor:
        """(B, K) bool: cells that end on a real snippet; `mask` is (B, T)."""
        return mask[:, self.last]


class Bmn(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D; the first convolution has fewer groups if 4 does not divide it.
        num_classes: C.
        hp: BmnTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: BmnTrain) -> None:
        super().__init__()
        width, maps = hp.base_dim, hp.map_dim
        self.longest, self.r_act = hp.longest, hp.r_act
        self.base_convs = nn.ModuleList(
            [_conv(size, width, math.gcd(size, GROUPS)) for size in (feature_dim, width)]
        )
        self.start_convs = nn.ModuleList([_conv(width, width, GROUPS), nn.Conv1d(width, 1, 1)])
        self.end_convs = nn.ModuleList([_conv(width, width, GROUPS), nn.Conv1d(width, 1, 1)])
        self.proposal_conv = _conv(width, width)
        self.matching = BoundaryMatching(
            width, hp.sample_dim, hp.num_sample, hp.per_bin, hp.context, hp.longest
        )
        self.reduce = nn.Linear(hp.sample_dim, maps)
        self.map_convs = nn.ModuleList([nn.Conv2d(maps, maps, 3, padding=1) for _ in range(2)])
        self.rate = nn.Conv2d(maps, 3 if hp.tnd else 2, 1)
        if hp.tnd:
            nn.init.constant_(self.rate.bias[TND], TND_BIAS)  # type: ignore[index]
        self.classifier = nn.Conv1d(width, num_classes, 1)

    def base(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, H) base features, zero on padding; `mask` is (B, T) bool."""
        value = features.mT
        for conv in self.base_convs:
            value = F.relu(conv(value)) * mask[:, None]
        return value.mT

    def forward(self, features: Tensor, mask: Tensor) -> BmnOutput:
        """All outputs for videos or windows.

        Args:
            features: (B, T, D), zero on padding.
            mask: (B, T) bool; the output of a video does not depend on its padding.
        """
        base = self.base(features, mask)
        first, last = cells_on(mask.device, mask.shape[1], self.longest)
        value = F.relu(self.proposal_conv(base.mT)) * mask[:, None]
        maps = self._maps(value.mT, mask, first, last)
        return BmnOutput(
            base=base,
            start=self._boundary(self.start_convs, base, mask),
            end=self._boundary(self.end_convs, base, mask),
            maps=maps.flatten(2)[:, :, first * mask.shape[1] + last],
            first=first,
            last=last,
            video=self.video_scores(base, mask),
        )

    def video_scores(self, base: Tensor, mask: Tensor) -> Tensor:
        """(B, C) mean of the T // r_act highest class probabilities of snippets."""
        score = torch.sigmoid(self.classifier(base.mT).float()).mT
        return mil.video_scores(score, mask, self.r_act)

    @staticmethod
    def _boundary(convs: nn.ModuleList, base: Tensor, mask: Tensor) -> Tensor:
        hidden, output = convs
        logit = output(F.relu(hidden(base.mT)))[:, 0]
        return torch.sigmoid(logit.float()) * mask

    def _maps(self, value: Tensor, mask: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """(B, T, H) -> (B, M, T, T) scores of all segments.

        Only cells are sampled. Other segments have samples of 0 and so a constant value, which
        affects their neighbours through the convolutions, as in the released code.
        """
        videos, length = mask.shape
        nothing, found = (
            F.relu(self.reduce(F.relu(sampled)))
            for sampled in (self.matching.bias, self.matching(value))
        )
        maps = nothing.expand(length**2, videos, -1).index_copy(0, first * length + last, found)
        maps = maps.permute(1, 2, 0).reshape(videos, -1, length, length)
        # Positions outside a video are zero before a convolution.
        real = (mask[:, None, :, None] & mask[:, None, None]).to(maps.dtype)
        for conv in self.map_convs:
            maps = F.relu(conv(maps * real))
        return torch.sigmoid(self.rate(maps).float())


def check(store: FeatureStore, hp: BmnTrain) -> None:
    """Check that the network can be built.

    Raises:
        ConfigError: sizes do not fit each other, or external scores leak labels.
        DataError: external scores cannot be read, or snippets have another stride.
    """
    external.check(store, hp)
    check_snippets(store, hp)
    if hp.base_dim % GROUPS:
        raise ConfigError(f"train.base_dim: {hp.base_dim} is no multiple of {GROUPS}; choose one")
    if not hp.window and not hp.resample_to:
        raise ConfigError(
            "train.window: 0 needs resampled videos; set it, or train.resample_to, to e.g. 100"
        )
    if hp.window and hp.max_snippets > hp.window:
        raise ConfigError(
            f"train.max_snippets: {hp.max_snippets} is more than train.window; choose {hp.window}"
        )
    if hp.joint and not hp.tnd:
        raise ConfigError("train.joint: true needs train.tnd: true")


def build(store: FeatureStore, hp: BmnTrain) -> Bmn:
    """The network for a dataset; raises as `check`."""
    check(store, hp)
    return Bmn(store.info.feature_dim, store.info.num_classes, hp)


def _conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=1, groups=groups)
