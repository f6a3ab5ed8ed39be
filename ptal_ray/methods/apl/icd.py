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
from ptal_ray.methods.method import Batch, Known, Pseudo, Step

PAIRS_AT_ONCE = 1 << 18  # compared in one go


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
        """(..., D) -> (..., hidden), what the hidden layer gets of a first instance.

        The layer is linear, so each instance passes it once however many it is compared with.
        """
        return F.linear(value, self.first.weight.chunk(2, dim=1)[0], self.first.bias)

    def other_side(self, value: Tensor) -> Tensor:
        """(..., D) -> (..., hidden), what it gets of a second one."""
        return F.linear(value, self.first.weight.chunk(2, dim=1)[1])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(...) logits of the same action, from hidden sides that broadcast."""
        logit: Tensor = self.second(F.relu(one + other))[..., 0]
        return logit


def instance_vectors(split: PackedSplit, row: int, segments: Segments) -> Tensor:
    """(K, D) maximum over time of a video's features in each segment, on the host."""
    length = int(split.lengths[row])
    only, none, kept = (np.array([v]) for v in (row, 0, length))
    features = split.features(only, none, kept, length)[0].cpu()
    grid = split.grids[row]
    first = np.clip(np.floor(grid.snippets(segments.start_s)), 0, length - 1).astype(int)
    behind = np.clip(np.ceil(grid.snippets(segments.end_s)), first + 1, length).astype(int)
    found = [features[a:b].amax(dim=0) for a, b in zip(first, behind, strict=True)]
    return torch.stack(found) if found else features.new_zeros(0, features.shape[1])


def bank(known: Known) -> Pseudo:
    """The instances of the annotated videos as the discriminator sees them.

    Returns:
        "vector" (V, K, D); "instance" (V, K) int64 classes, -1 pads; "row" (V,) rows of the split.
    """
    truth = known.truth()
    split, none = known.split, Segments.empty()
    own = [truth.get(i, none) for i in split.ids]
    most = max(1, *(len(segments) for segments in own))
    vector = torch.zeros(len(own), most, split.store.info.feature_dim)
    label = torch.full((len(own), most), -1)
    for row, segments in enumerate(own):
        vector[row, : len(segments)] = instance_vectors(split, row, segments)
        label[row, : len(segments)] = torch.tensor(segments.label)
    return {"vector": vector, "instance": label, "row": torch.arange(len(own))}


def partners(anchor: Tensor, every: Tensor, draw: Tensor, number: int) -> Tensor:
    """(A, 2 number) indices of instances: partners of each anchor's class, then of other classes.

    They lie evenly spaced in the instances ordered by class, from a random one on: without
    repetition where there are enough, else one after the other again and again. An anchor whose
    class has no other instance, or that meets no other class, is its own partner.

    Args:
        anchor: (A,) indices of instances, no padding.
        every: (M,) classes of all instances, -1 pads.
        draw: (A, 2) uniform in [0, 1), where either kind begins.
        number: of partners of each kind.
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


def discriminator_loss(model: Discriminator, batch: Batch, hp: Any, step: Step) -> Tensor:
    """Mean cross entropy over pairs of the batch's instances with partners from the whole bank.

    Source: APL Eq. 8. Deviation: partners come from all labelled videos, since a batch of two
    rarely has two classes.
    """
    assert batch.pseudo is not None and step.split_pseudo is not None
    vectors, classes = step.split_pseudo["vector"], step.split_pseudo["instance"]
    every, most = classes.flatten(), classes.shape[1]
    draw = step.rand(len(batch.mask), most, 2)
    row, slot = (batch.pseudo["instance"] >= 0).nonzero(as_tuple=True)
    anchor = batch.pseudo["row"][row] * most + slot
    other = partners(anchor, every, draw[row, slot], hp.icd_partners)
    same = (every[other] == every[anchor][:, None]).float()
    flat = vectors.flatten(0, 1)
    one, two = model.one_side(flat[anchor]), model.other_side(flat[other])
    wrong = F.binary_cross_entropy_with_logits(
        model(one[:, None], two).float(), same, reduction="none"
    ).mean(dim=1)
    number = step.mean_over_workers(wrong.new_tensor(len(anchor)))
    return wrong.sum() / number.clamp(min=1)


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
        other: (M, hidden) the other side of the annotated instances.
        classes: (M,) theirs.

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
