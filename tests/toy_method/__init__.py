"""A method of one layer, whole: what `CONTRIBUTING.md` copies to `ptal_ray/methods/toy`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from ptal_ray.data.types import Scores, Segments
from ptal_ray.methods.method import DecodeParams, Method, TrainParams, param


@dataclass(frozen=True, kw_only=True)
class ToyTrain(TrainParams):
    lr: float = param(0.02, doc="learning rate", source="PROPOSED", allowed=(1e-6, 1.0))


@dataclass(frozen=True, kw_only=True)
class ToyDecode(DecodeParams):
    threshold: float = param(0.5, doc="of the score", source="PROPOSED", allowed=(0.0, 1.0))


def toy_loss(model, batch, hp, step):
    logits = model(batch.features.transpose(1, 2)).transpose(1, 2)
    real = batch.point_t >= 0
    at = logits.gather(1, batch.point_t.clamp_min(0)[..., None].expand(-1, -1, logits.shape[-1]))
    each = nn.functional.binary_cross_entropy_with_logits(at, batch.point_label, reduction="none")
    return {"point": each[real].mean()}


def toy_scores(model, batch, hp):
    probability = model(batch.features.transpose(1, 2)).sigmoid().transpose(1, 2)
    return [
        Scores(id=i, arrays={"probability": p[m].numpy()})
        for i, p, m in zip(batch.ids, probability, batch.mask, strict=True)
    ]


def toy_decode(scores, grid, duration_s, hp):
    probability = scores.arrays["probability"]
    best = probability.argmax(1)
    kept = probability.max(1) > hp.threshold
    edges = np.flatnonzero(np.diff(np.where(kept, best, -1))) + 1
    bounds = [0, *edges, len(best)]
    runs = [(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if kept[a]]
    found = Segments(
        start_s=grid.seconds(np.array([a for a, _ in runs], float)),
        end_s=np.minimum(grid.seconds(np.array([b for _, b in runs], float)), duration_s),
        label=np.array([best[a] for a, _ in runs], np.int64),
        score=np.array([probability[a:b].max() for a, b in runs], float),
    )
    return found.take(np.argsort(-found.score, kind="stable"))


METHOD = Method(
    name="toy", supervision="point", train_params=ToyTrain, decode_params=ToyDecode,
    build=lambda store, hp: nn.Conv1d(store.info.feature_dim, store.info.num_classes, 1),
    loss=toy_loss, scores=toy_scores, decode=toy_decode,
)  # fmt: skip
