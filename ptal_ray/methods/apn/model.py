"""The network of APN: embedding, boundary detector and proposal evaluator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data import text
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.apn.params import ApnTrain
from ptal_ray.methods.apn.proposals import sample_features

BOUNDARY_WIDTH = 512  # channels of the boundary detector, if D_e is at least as large
HEAD_WIDTH = 64  # channels of an attention head, or the next number that divides the width


class Layer(nn.Module):
    """A pre-norm transformer layer; `drop` (S, 2, W) scales its two residual branches.

    Deviation: one dropout mask per sequence, shared by its tokens (Gal and Ghahramani, 2016), so
    that draws are the same with any number of workers; no dropout inside attention.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        most = max(1, width // HEAD_WIDTH)
        self.heads = next(heads for heads in range(most, 0, -1) if width % heads == 0)
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, drop: Tensor | None) -> Tensor:
        """(S, N, W) -> (S, N, W)."""
        split = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + (attended if drop is None else attended * drop[:, :1])
        changed = self.mlp(self.norm_mlp(x))
        out: Tensor = x + (changed if drop is None else changed * drop[:, 1:])
        return out


class Apn(nn.Module):
    """See the method's README for the equations.

    Args:
        feature_dim: D.
        num_classes: C.
        text_embedding: (C, d_text), or None for learnable ones.
        hp: ApnTrain.
    """

    text: Tensor
    longest_t: Tensor

    def __init__(
        self, feature_dim: int, num_classes: int, text_embedding: Tensor | None, hp: ApnTrain
    ) -> None:
        super().__init__()
        self.hp = hp
        width, dim = hp.encoder_width, hp.embed_dim
        hidden = min(BOUNDARY_WIDTH, dim)
        self.embedding = nn.Conv1d(feature_dim, dim, 3, padding=1)
        self.boundary = nn.ModuleList(
            [nn.Conv1d(dim, hidden, 3, padding=1), nn.Conv1d(hidden, hidden, 3, padding=1)]
        )
        self.boundary_out = nn.Conv1d(hidden, 3 if hp.action_channel else 2, 1)
        self.project = nn.Linear(dim, width, bias=False)
        self.project_bias = nn.Parameter(torch.zeros(width))
        self.cls = nn.Parameter(0.02 * torch.randn(width))
        self.position = nn.Parameter(0.02 * torch.randn(hp.num_samples + 1, width))
        self.layers = nn.ModuleList([Layer(width) for _ in range(hp.encoder_layers)])
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_classes)
        )
        if text_embedding is None:
            self.text = nn.Parameter(torch.randn(num_classes, width))
        else:
            self.register_buffer("text", F.normalize(text_embedding.float(), dim=-1))
        self.match = nn.Linear(width, self.text.shape[1])
        if hp.confidence == "sigmoid":
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
            self.bias = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("longest_t", torch.tensor(float("inf")))

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> X (B, T, D_e), zero on padding."""
        x = torch.relu(self.embedding(features.mT)).mT
        return x * mask[..., None]

    def boundaries(self, x: Tensor, mask: Tensor) -> Tensor:
        """X (B, T, D_e) -> probabilities (B, 2 or 3, T): start, end and, if enabled, action."""
        hidden = x.mT
        for convolution in self.boundary:  # padding stays zero, as after the end of a video
            hidden = torch.relu(convolution(hidden)) * mask[:, None]
        return torch.sigmoid(self.boundary_out(hidden).float())

    def evaluate(
        self, x: Tensor, start: Tensor, end: Tensor, drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class logits and text-confidence logits of proposals, each (B, K, C).

        Args:
            x: (B, T, D_e), zero on padding.
            start, end: (B, K) edges in snippets.
            drop: (B, K, layers, 2, W) dropout scales, or None.
        """
        hp = self.hp
        # The projection is linear, so it is applied before sampling: to T rows instead of K * N.
        sampled = sample_features(self.project(x), start, end, hp.num_samples, hp.context_ratio)
        tokens = (sampled + self.project_bias).flatten(0, 1)  # (B * K, N, W)
        cls = self.cls.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = torch.cat([cls, tokens], dim=1) + self.position
        flat = None if drop is None else drop.flatten(0, 1)
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens, None if flat is None else flat[:, number])
        tokens = self.norm(tokens)
        pooled = tokens[:, 1:].mean(dim=1) if hp.pool == "mean" else tokens[:, 0]
        shape = (*start.shape, -1)
        return (
            self.classify(tokens[:, 0]).float().view(shape),
            self._confidence(self.match(pooled).float()).view(shape),
        )

    def _confidence(self, vector: Tensor) -> Tensor:
        """Logit of s from the cosine between a proposal and the class texts."""
        cosine = F.normalize(vector, dim=-1) @ F.normalize(self.text, dim=-1).mT
        if self.hp.confidence == "sigmoid":
            return cosine * self.log_scale.exp() + self.bias
        return torch.logit((1 + cosine) / 2, eps=1e-4)


def check(store: FeatureStore, hp: ApnTrain) -> None:
    """Check that the text encoder of `hp` can be used.

    Raises:
        ConfigError: it is unknown, or its package or its weights are missing.
        DataError: its file is not a matrix with one row per class.
    """
    if encoder := hp.texts():
        text.check_encoder(store, encoder)


def build(store: FeatureStore, hp: ApnTrain) -> Apn:
    """The network for a dataset; class embeddings come from the text encoder of `hp`."""
    embedding = None
    if encoder := hp.texts():
        embedding = torch.from_numpy(text.class_embeddings(store, encoder))
    return Apn(store.info.feature_dim, store.info.num_classes, embedding, hp)
