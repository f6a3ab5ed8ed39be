"""The instance-consistency discriminator: whether two instances show the same action."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.types import Segments
from ptal_ray.methods.apl.apl_params import AplStages
from ptal_ray.methods.apl.instances import used_columns
from ptal_ray.methods.method import Batch, Known, Pseudo, Step

PAIRS_AT_ONCE = 1 << 18  # compared at once


class Discriminator(nn.Module):
    """One hidden layer over the features of two instances.

    Args:
        feature_dim: D.
        hidden: channels.
    """

    def __init__(self, feature_dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * feature_dim, hidden)
        self.second = nn.Linear(hidden, 1)

    def one_side(self, value: Tensor) -> Tensor:
        """(..., D) -> (..., hidden), the input of the hidden layer from a first instance.

        The layer is linear, so each instance passes it only once, for all comparisons.
        """
        return F.linear(value, self.first.weight.chunk(2, dim=1)[0], self.first.bias)

    def other_side(self, value: Tensor) -> Tensor:
        """(..., D) -> (..., hidden), the input from a second instance."""
        return F.linear(value, self.first.weight.chunk(2, dim=1)[1])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(...) logits of showing the same action, from broadcastable hidden inputs."""
        logit: Tensor = self.second(F.relu(one + other))[..., 0]
        return logit


def instance_vectors(split: PackedSplit, row: int, segments: Segments) -> Tensor:
    """(K, D) maximum over time of a video's features in each segment, computed on the host."""
    length = int(split.lengths[row])
    only, none, kept = (np.array([v]) for v in (row, 0, length))
    features = split.features(only, none, kept, length)[0].cpu()
    grid = split.grids[row]
    first = np.clip(np.floor(grid.snippets(segments.start_s)), 0, length - 1).astype(int)
    behind = np.clip(np.ceil(grid.snippets(segments.end_s)), first + 1, length).astype(int)
    found = [features[a:b].amax(dim=0) for a, b in zip(first, behind, strict=True)]
    return torch.stack(found) if found else features.new_zeros(0, features.shape[1])


def memory(known: Known, hp: AplStages) -> Pseudo:
    """The vectors of the M annotated instances for the discriminator, video by video.

    Returns:
        "vector" (M + 1, D); "class" (M + 1,) int64. The last row is padding, of class -1.
    """
    split, truth = known.split, known.truth()
    own = [(row, truth[id]) for row, id in enumerate(split.ids) if id in truth]
    padding = torch.zeros(1, split.store.info.feature_dim)
    vectors = [instance_vectors(split, row, segments) for row, segments in own]
    classes = np.concatenate([*(segments.label for _, segments in own), [-1]])
    return {"vector": torch.cat([*vectors, padding]), "class": torch.from_numpy(classes)}


def places(label: Tensor) -> Tensor:
    """(V, K) rows in the memory of the instances of a table of annotations, the last for padding.

    Args:
        label: (V, K) int64, -1 pads, in the order of the memory.
    """
    real = label >= 0
    return torch.where(real, real.flatten().cumsum(0).view_as(label) - 1, real.sum())


def partners(anchor: Tensor, every: Tensor, draw: Tensor, number: int) -> Tensor:
    """(A, 2 number) indices of instances: partners of each anchor's class, then of other classes.

    They are evenly spaced in the instances ordered by class, starting at a random one: without
    repetition if there are enough, else repeated in order. An anchor without another instance of
    its class, or without another class, is its own partner.

    Args:
        anchor: (A,) indices of instances; the result for padding is undefined.
        every: (M,) classes of all instances, -1 pads.
        draw: (A, 2) uniform in [0, 1), for the start of either kind.
        number: number of partners of each kind.
    """
    order = every.argsort(stable=True)
    ranked, label = every[order], every[anchor]
    first = torch.searchsorted(ranked, label)
    own = torch.searchsorted(ranked, label, right=True) - first
    padding = (every < 0).sum()
    count = torch.stack([own - 1, len(every) - padding - own], dim=1)[..., None]  # (A, 2, 1)
    part = torch.arange(number, device=every.device)
    index = torch.floor((part + draw[..., None]) * (count / number)).long()
    alike, other = torch.minimum(index, count - 1).unbind(dim=1)
    alike = alike + first[:, None]
    alike = alike + (alike >= order.argsort()[anchor][:, None]).long()
    other = other + padding
    other = other + own[:, None] * (other >= first[:, None])
    chosen = order[torch.stack([alike, other], dim=1).clamp(min=0, max=len(every) - 1)]
    return torch.where(count > 0, chosen, anchor[:, None, None]).flatten(1)


def discriminator_loss(model: Discriminator, batch: Batch, hp: AplStages, step: Step) -> Tensor:
    """Mean cross entropy over pairs of the batch's instances with partners from the whole memory.

    Source: APL Eq. 8. Deviation: partners come from all labelled videos, because a batch of two
    videos rarely has two classes.
    """
    assert batch.pseudo is not None and step.memory is not None
    vectors, every = step.memory["vector"], step.memory["class"]
    index = batch.pseudo["instance"]
    draw, used = step.rand(*index.shape, 2), used_columns(every[index] >= 0)
    anchor = index[:, :used].flatten()
    other = partners(anchor, every, draw[:, :used].flatten(0, 1), hp.icd_partners)
    same = (every[other] == every[anchor][:, None]).float()
    one, two = model.one_side(vectors[anchor]), model.other_side(vectors)[other]
    wrong = F.binary_cross_entropy_with_logits(
        model(one[:, None], two).float(), same, reduction="none"
    ).mean(dim=1)
    real = (every[anchor] >= 0).float()
    return (wrong * real).sum() / step.mean_over_workers(real.sum()).clamp(min=1)


@torch.no_grad()
def likeness(
    model: Discriminator,
    vectors: Tensor,
    label: NDArray[np.integer[Any]],
    other: Tensor,
    classes: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """(P,) mean score of each prediction with all annotated instances of its class.

    Args:
        vectors: (P, D) of the predictions.
        label: (P,) their classes.
        other: (M, hidden) `other_side` of the annotated instances.
        classes: (M,) their classes.

    Returns:
        NaN for a class without an annotated instance.

    Source: APL Eq. 9.
    """
    found = np.full(len(label), np.nan)
    one = model.one_side(vectors)
    for c in np.intersect1d(label, classes):
        rows, own = np.flatnonzero(label == c), other[torch.from_numpy(classes == c)]
        for part in np.array_split(rows, max(1, len(rows) * len(own) // PAIRS_AT_ONCE)):
            score = torch.sigmoid(model(one[torch.from_numpy(part)][:, None], own[None]))
            found[part] = score.mean(dim=1).numpy()
    return found
