"""The network of LACP: one temporal convolution and a classifier of snippets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.lacp.params import LacpTrain


class Lacp(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: LacpTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: LacpTrain) -> None:
        super().__init__()
        self.keep = 1 - hp.dropout
        self.embedding = nn.Conv1d(feature_dim, hp.embed_dim, hp.kernel, padding="same")
        self.classifier = nn.Conv1d(hp.embed_dim, num_classes + 1, 1, bias=False)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> F (B, T, H) and s (B, T, C + 1); undefined on padding.

        Args:
            features: zero on padding.
            kept: (B, H, T) bool, values of F for the classifier; dropout removes the others.
        """
        embedded = F.relu(self.embedding(features.mT))
        logit = self.classifier(embedded) if kept is None else self.classifier(embedded * kept)
        scale = 1.0 if kept is None else self.keep  # F is large, the scores are small
        return embedded.mT, torch.sigmoid(logit.float() / scale).mT


def build(store: FeatureStore, hp: LacpTrain) -> Lacp:
    """The network for a dataset."""
    return Lacp(store.info.feature_dim, store.info.num_classes, hp)
