"""The main model: a pyramid of local-window transformers and one head for all its levels."""

from __future__ import annotations

from torch import Tensor, nn

from ptal_ray.data.snippet_stride import check_snippets
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods.potloc.params import PotlocTrain
from ptal_ray.ops.pyramid import (
    ConvBlock,
    LevelHead,
    Pyramid,
    TransformerBlock,
    joined,
    level_masks,
    padded,
    separated,
)


class Potloc(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: PotlocTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: PotlocTrain) -> None:
        super().__init__()
        self.levels, self.drop_path = hp.levels, hp.drop_path
        strides = [1, 1] + [2] * hp.levels
        blocks = [_block(hp, stride) for stride in strides]
        self.pyramid = Pyramid(feature_dim, hp.width, blocks, hp.recompute)
        self.head = LevelHead(hp.width, num_classes + 1)

    def forward(
        self, features: Tensor, mask: Tensor, kept: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(B, T, D) -> for each level l scores (B, T / 2^l, C + 1), zero on padding, and masks.

        Args:
            features: zero on padding; T a multiple of 2^levels.
            mask: (B, T) bool.
            kept: (B, branches) factors: 0 for a branch dropped by drop-path.
        """
        if kept is None:
            kept = features.new_ones((len(features), self.pyramid.branches))
        masks = level_masks(mask, self.levels)
        found = self.pyramid(features, masks, kept)
        return separated(self.head(*joined(found, masks)), masks), masks

    def padded(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both with padding at the end, so that the end of no video depends on other videos."""
        return padded(features, mask, self.levels)


def _block(hp: PotlocTrain, stride: int) -> nn.Module:
    if hp.backbone == "convolution":
        return ConvBlock(hp.width, stride)
    return TransformerBlock(hp.width, hp.heads, hp.window, stride)


def check(store: FeatureStore, hp: PotlocTrain) -> None:
    """Check that the network can be built.

    Raises:
        ConfigError: the heads do not divide the channels.
        DataError: snippets have another stride.
    """
    check_snippets(store, hp)
    if hp.backbone == "transformer" and hp.width % hp.heads:
        raise ConfigError(
            f"train.width: {hp.width} does not divide among {hp.heads} heads; choose a multiple"
        )


def build(store: FeatureStore, hp: PotlocTrain) -> Potloc:
    """The network for a dataset; raises as `check`."""
    check(store, hp)
    return Potloc(store.info.feature_dim, store.info.num_classes, hp)
