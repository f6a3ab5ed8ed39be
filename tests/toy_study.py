"""A method of one layer, and a study of it that takes seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from conftest import make_store
from torch import nn

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores, Segments
from ptal_ray.methods import method as methods
from ptal_ray.methods.method import DecodeParams, Method, TrainParams, param
from ptal_ray.space.space import parse_space
from ptal_ray.study import study as studies
from ptal_ray.study.events import EventLog
from ptal_ray.study.view import StudyView


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


def toy_scores(model, batch, hp, grids):
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


TOY = Method(
    name="toy", supervision="point", train_params=ToyTrain, decode_params=ToyDecode,
    build=lambda store, hp: nn.Conv1d(store.info.feature_dim, store.info.num_classes, 1),
    loss=toy_loss, scores=toy_scores, decode=toy_decode,
)  # fmt: skip

SPACE = """
method: toy
dataset: tiny
policy: simple
selection: {metric: val, val_fraction: 0.3, decode_settings: 4}
budget: {trials: 6, min_steps: 2, max_steps: 8, eta: 2}
train: {lr: {loguniform: [1e-3, 1e-1]}, batch_size: 4}
decode: {threshold: {uniform: [0.1, 0.9]}}
final: {top: 2, seeds: 2}
"""


def space(*overrides):
    return parse_space(SPACE, name="toy_tiny", source="toy_tiny.yaml", overrides=overrides)


def fill(study, objectives, **more):
    """A log of complete trials with these objectives."""
    log = EventLog(study.events)
    for number, value in enumerate(objectives):
        params = {"lr": more.get("lr", lambda n: 0.01 + n / 1000)(number)}
        log.append("trial_start", trial=number, params=params, from_step=0)
        log.append("report", trial=number, step=8, objective=value, metrics={}, seconds=1.0,
                   decode={"threshold": 0.1 * (number + 1)})  # fmt: skip
        log.append("trial_end", trial=number, state="complete", message="")
    return StudyView.read(study.directory)


def use_toy(monkeypatch):
    """Makes it the only method."""
    monkeypatch.setattr(methods, "load", lambda name: TOY)
    monkeypatch.setattr(methods, "names", lambda: ("toy",))
    monkeypatch.setattr("ptal_ray.training.task.load", lambda name: TOY)
    monkeypatch.setattr(studies, "provenance", lambda: {"git_commit": "", "versions": {}})


def toy_store(folder):
    """What it learns from."""
    return FeatureStore.open(make_store(folder / "tiny", train=12, test=3))
