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


def partners(
    anchor: Tensor, label: Tensor, every: Tensor, same: bool, draw: Tensor, number: int
) -> Tensor:
    """(A, number) indices of instances of the same class as each anchor, or of another.

    Without repetition where there are enough, else one after the other again and again. An
    anchor whose class has no other instance is its own partner.

    Args:
        anchor: (A,) indices among all instances.
        label: (A,) classes.
        every: (M,) classes of all instances, -1 pads.
        same: of the same class.
        draw: (A, M) uniform in [0, 1).
        number: of partners.
    """
    index = torch.arange(len(every), device=every.device)
    alike = every[None] == label[:, None]
    allowed = (alike & (index[None] != anchor[:, None])) if same else (~alike & (every >= 0))
    order = draw.masked_fill(~allowed, 2.0).argsort(dim=1)
    count = allowed.sum(dim=1, keepdim=True)
    place = torch.arange(number, device=every.device)[None] % count.clamp(min=1)
    chosen = order.gather(1, place)
    return torch.where(count > 0, chosen, anchor[:, None])


def discriminator_loss(model: Discriminator, batch: Batch, hp: Any, step: Step) -> Tensor:
    """Mean cross entropy over pairs of the batch's instances with partners from the whole bank.

    Source: APL Eq. 8. Deviation: partners come from all labelled videos, since a batch of two
    rarely has two classes.
    """
    assert batch.pseudo is not None and step.split_pseudo is not None
    vectors, classes = step.split_pseudo["vector"], step.split_pseudo["instance"]
    every, most = classes.flatten(), classes.shape[1]
    label = batch.pseudo["instance"].flatten()
    slot = torch.arange(most, device=every.device)
    anchor = (batch.pseudo["row"][:, None] * most + slot).flatten()
    size = (len(batch.pseudo["row"]), most, len(every))
    drawn = [step.rand(size[0], *size[1:]).flatten(0, 1) for _ in range(2)]
    number = hp.icd_partners
    positive = partners(anchor, label, every, True, drawn[0], number)
    negative = partners(anchor, label, every, False, drawn[1], number)
    other = torch.cat([positive, negative], dim=1)  # (A, 2 number)
    same = (every[other] == label[:, None]).float()
    flat = vectors.flatten(0, 1)
    one, two = model.one_side(flat[anchor]), model.other_side(flat[other])
    wrong = F.binary_cross_entropy_with_logits(
        model(one[:, None], two).float(), same, reduction="none"
    ).mean(dim=1)
    real = (label >= 0).float()
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
