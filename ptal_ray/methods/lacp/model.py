"""The network of LACP: one temporal convolution and a classifier of snippets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.store import FeatureStore


class Lacp(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: LacpTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: Any) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(feature_dim, hp.embed_dim, hp.kernel, padding="same")
        self.classifier = nn.Linear(hp.embed_dim, num_classes + 1, bias=False)

    def forward(
        self, features: Tensor, mask: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> F (B, T, H), zero on padding, and s (B, T, C + 1).

        Args:
            features, mask: a batch.
            kept: (B, T, H) dropout factors of F on its way to the classifier, or None.
        """
        embedded = F.relu(self.embedding(features.mT)).mT * mask[..., None]
        logit = self.classifier(embedded if kept is None else embedded * kept)
        return embedded, torch.sigmoid(logit.float())


def build(store: FeatureStore, hp: Any) -> Lacp:
    """The network for a dataset."""
    return Lacp(store.info.feature_dim, store.info.num_classes, hp)
