"""Which videos a trial trains on and is scored on, and what training may see of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptal_ray.data import splits
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import DataError
from ptal_ray.methods.method import Method
from ptal_ray.trial_config import TrialConfig


def split_ids(store: FeatureStore, config: TrialConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training ids and ids to score.

    Raises:
        DataError: one of them is empty.
    """
    fit, val = splits.fold(store, config.val_fraction, config.fold_seed)
    training = store.ids("train") if config.fit_on == "train" else fit
    scored = store.ids("test") if config.score_on == "test" else val
    for name, ids in ((config.fit_on, training), (config.score_on, scored)):
        if not ids:
            raise DataError(f"{store.path}: split {name!r} is empty; import videos of that subset")
    return tuple(training), tuple(scored)


def visible_ids(
    store: FeatureStore, ids: tuple[str, ...], method: Method, hp: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids that training sees, and those of them whose annotations it may see."""
    if method.supervision == "point":
        return ids, ids
    if method.labels is None:  # learns from features alone
        return ids, ()
    labelled = splits.labelled(store, ids, hp.labelled_fraction, hp.labelled_seed)
    return (ids if method.supervision == "semi" else labelled), labelled


def visible_points(
    store: FeatureStore,
    ids: tuple[str, ...],
    method: Method,
    truth: Callable[[], dict[str, Segments]],
) -> list[Points]:
    """Annotated points of each video, or the centres of the instances it is annotated with."""
    if method.supervision == "point":
        return [store.points(i) for i in ids]
    if method.labels is None:
        return [Points(time_s=np.zeros(0), label=np.zeros(0, np.int64)) for _ in ids]
    return splits.centres(ids, truth())
