"""The network of FS-PTAL: snippet scores, class-wise foreground branch, separation embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.fsptal.params import FsptalTrain

FOREGROUND_SCALE = 10.0  # of the cosines before the softmax over classes
ATTENTION_TEMPERATURE = 0.1


class Fsptal(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        hp: FsptalTrain.
    """

    def __init__(self, feature_dim: int, num_classes: int, hp: FsptalTrain) -> None:
        super().__init__()
        self.hp = hp
        self.embedding = nn.Conv1d(feature_dim, hp.embed_dim, 3, padding=1)
        self.classifier = nn.Conv1d(hp.embed_dim, num_classes + 1, 1, bias=False)
        self.prototypes = nn.Parameter(torch.randn(num_classes + 1, hp.embed_dim))
        self.foreground = nn.Parameter(-self.prototypes[-1].detach().clone())
        self.separate = nn.Conv1d(hp.embed_dim, hp.separation_hidden, 3, padding=1)
        self.project = nn.Linear(hp.separation_hidden, hp.separation_dim)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> F (B, T, H) and q (B, T, C + 1); undefined on padding.

        Args:
            features: zero on padding.
            kept: (B, H, T) bool, values of F for the classifier; dropout removes the others.
        """
        embedded = F.relu(self.embedding(features.mT))
        logit = self.classifier(embedded) if kept is None else self.classifier(embedded * kept)
        scale = 1.0 if kept is None else 1 - self.hp.dropout
        return embedded.mT, torch.sigmoid(logit.float() / scale).mT

    def foreground_scores(self, embedded: Tensor, mask: Tensor, several: Tensor) -> Tensor:
        """Q_f (B, C + 1) of the class-wise foreground branch.

        Args:
            embedded: F (B, T, H).
            mask: (B, T).
            several: (B,) bool, videos with more than one class.
        """
        hp = self.hp
        temperatures = [float(t) for t in hp.temperatures.split(",")]
        logit = foreground_logits(
            embedded.float(), mask, self.prototypes, self.foreground, temperatures, hp.cosine_scale
        )
        soft, single = logit.softmax(dim=1), torch.sigmoid(logit)
        if hp.foreground_output == "auto":
            return torch.where(several[:, None], single, soft)
        return soft if hp.foreground_output == "softmax" else single

    def separation(self, embedded: Tensor, mask: Tensor, segment: Tensor, at: Tensor) -> Tensor:
        """E (B, K, D_ebd) of norm 1 at some snippets, which attend to those of their segment.

        Args:
            embedded: F (B, T, H).
            mask: (B, T).
            segment: (B, T) int64 number of the segment of each snippet, -1 for none.
            at: (B, K) int64 snippets.
        """
        hidden = F.relu(self.separate((embedded * mask[..., None]).mT)).mT * mask[..., None]
        direction = F.normalize(hidden, dim=-1)
        rows = torch.arange(len(at), device=at.device)[:, None]
        own = segment[rows, at][..., None]
        same = (own == segment[:, None]) & (own >= 0)
        same |= at[..., None] == torch.arange(segment.shape[1], device=at.device)
        similar = (direction[rows, at] / ATTENTION_TEMPERATURE) @ direction.mT  # (B, K, T)
        attention = similar.masked_fill(~same, -torch.inf).softmax(dim=-1)
        small = F.linear(hidden, self.project.weight)  # smaller than hidden, so summed instead
        made = small[rows, at] + attention @ small + self.project.bias
        return F.normalize(made.float(), dim=-1)


def foreground_logits(
    embedded: Tensor, mask: Tensor, prototypes: Tensor, foreground: Tensor,
    temperatures: list[float], scale: float,
) -> Tensor:  # fmt: skip
    """(B, C + 1) similarity of attended class features to the foreground, before the softmax.

    Args:
        embedded: (B, T, H).
        mask: (B, T).
        prototypes: (C + 1, H) of the classes and the background.
        foreground: (H,) prototype.
        temperatures: of the attention over time; the scores are averaged.
        scale: of the cosines between snippets and prototypes.

    Source: FAC-Net code; golden facnet.
    """
    cosine = F.normalize(embedded, dim=-1) @ F.normalize(prototypes, dim=-1).mT
    similar = (scale * cosine).masked_fill(~mask[..., None], -torch.inf)  # (B, T, C + 1)
    target = F.normalize(foreground, dim=-1)
    scores = [
        F.normalize((t * similar).softmax(dim=1).mT @ embedded, dim=-1) @ target
        for t in temperatures
    ]
    return FOREGROUND_SCALE * torch.stack(scores).mean(dim=0)


def build(store: FeatureStore, hp: FsptalTrain) -> Fsptal:
    """The network for a dataset."""
    return Fsptal(store.info.feature_dim, store.info.num_classes, hp)
