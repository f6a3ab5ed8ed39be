"""Configurations of a search for the whole training split, with the same number of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ptal_ray.data.sampling import BatchPlan
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import AnyMethod, TrainParams, load
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.supervision import split_ids, visible_ids


def on_whole_split(config: TrialConfig, store: FeatureStore) -> TrialConfig:
    """`config` for the whole training split; each video is used as often as in a search trial.

    Trials of a search exclude a fold. With the same number of steps a final run would use each
    video less often, so the steps grow with the number of videos, also in earlier stages.

    Args:
        config: of a search trial, which trains on "fit".
        store: its data.

    Returns:
        The configuration with `fit_on` "train", only its last report, and the steps of each earlier
        stage in its train parameters.

    Raises:
        DataError: a split is empty.
    """
    method = load(config.method)
    kind: Any = method.train_params
    hp, train = kind(**config.train), dict(config.train)
    fit, whole = (
        split_ids(store, replace(config, fit_on=name), hp)[0] for name in ("fit", "train")
    )
    for name, stage, own in _stages(method, hp):
        train[name] = steps_on(int(train[name]), stage, own, store, fit, whole)
    steps = steps_on(config.report_steps[-1], method, hp, store, fit, whole)
    return replace(config, fit_on="train", report_steps=(steps,), train=train)


def steps_on(
    steps: int,
    method: AnyMethod,
    hp: TrainParams,
    store: FeatureStore,
    fit: tuple[str, ...],
    whole: tuple[str, ...],
) -> int:
    """Steps in which each video of `whole` is used as often as each of `fit` in `steps`.

    Args:
        steps: on `fit`.
        method, hp: they determine which videos count, and the batch size.
        store: the feature store.
        fit, whole: ids of training videos.
    """
    before, after = (_steps_per_epoch(method, hp, store, ids) for ids in (fit, whole))
    return max(round(steps * after / before), 1) if steps else 0


def _steps_per_epoch(
    method: AnyMethod, hp: TrainParams, store: FeatureStore, ids: tuple[str, ...]
) -> float:
    """Number of videos (of two kinds: of unlabelled ones) divided by the batch size."""
    seen, labelled = visible_ids(store, ids, method, hp)
    number = len(seen)
    if method.groups is not None and len(labelled) < len(seen):
        number = len(seen) - len(labelled)
    plan = BatchPlan(groups=(np.arange(number),), asked_batch_size=hp.batch_size, seed=0)
    return number / plan.group_size


def _stages(method: AnyMethod, hp: TrainParams) -> Iterator[tuple[str, AnyMethod, Any]]:
    """For each earlier stage: the parameter with its steps, the stage and its parameters."""
    while method.stage is not None:
        name, hp = method.stage.steps, method.stage.params(hp)
        method = load(method.stage.method)
        yield name, method, hp
