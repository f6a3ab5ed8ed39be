"""The videos of a trial for training and scoring, and the annotations that training may use."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ptal_ray.data import splits
from ptal_ray.data.drawn_points import redrawn
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Points, Segments
from ptal_ray.errors import DataError
from ptal_ray.methods.method import AnyMethod, TrainParams
from ptal_ray.training.config import TrialConfig


def fold(
    store: FeatureStore, hp: TrainParams, fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids for training and for selection, with the same fraction of labelled videos.

    Args:
        store: the dataset.
        hp: train parameters; for methods that learn from annotations they determine the annotated
            videos.
        fraction, seed: see `splits.fold`.

    Raises:
        DataError: the method learns from annotations, and no training video is annotated.
    """
    return splits.fold(store, fraction, seed, set(annotated_ids(store, hp)))


def annotated_ids(store: FeatureStore, hp: TrainParams) -> tuple[str, ...]:
    """Training videos whose annotations may be read; none for methods supervised by points.

    Raises:
        DataError: no training video is annotated.
    """
    labelled = hp.labelled()
    return _labelled(store, *labelled) if labelled else ()


_labelled = lru_cache(maxsize=4)(splits.labelled)  # called often for a store, which is fixed


def split_ids(
    store: FeatureStore, config: TrialConfig, hp: TrainParams
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids for training and for scoring; none for scoring if `score_on` is "none".

    If new points are drawn, the folds are those of the stored points, and training videos without a
    new point are excluded, as in an import.

    Raises:
        DataError: one of them is empty, or the fold cannot be made.
    """
    fit, val = selection_fold(store, config, hp)
    training = store.ids("train") if config.fit_on == "train" else fit
    if config.points:
        training = _with_points(store, training, config.points)
    scored = {"test": store.ids("test"), "val": val, "none": ()}[config.score_on]
    for name, ids in ((config.fit_on, training), (config.score_on, scored)):
        if not ids and name != "none":
            fix = "import videos of that subset"
            if name == "test":
                fix += ", or leave the test out: --whole trains on all videos without one"
            if name == "val":  # not a subset of a file, but a part of one
                fix = "trials are judged on a part of the training videos: import 2 or more of them"
            raise DataError(f"{store.path}: split {name!r} is empty; {fix}")
    return tuple(training), tuple(scored)


def _with_points(store: FeatureStore, ids: tuple[str, ...], points: str) -> tuple[str, ...]:
    """The videos that have a drawn point.

    Raises:
        DataError: no video has one.
    """
    found = redrawn(store, points)
    kept = tuple(i for i in ids if len(found.points(i)))
    if not kept:
        raise DataError(
            f"{store.path}: --points {points}: the {len(ids)} training videos have no annotated "
            "instance to draw a point in; import annotations, or leave --points out"
        )
    return kept


def selection_fold(
    store: FeatureStore, config: TrialConfig, hp: TrainParams
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids for training and for selection: fold `fold` of `num_folds`, or by `val_fraction`.

    Raises:
        DataError: there are too few videos for the folds, the fold does not exist, or it has all
            annotated videos of a method that learns from annotations.
    """
    if not config.num_folds:
        return fold(store, hp, config.val_fraction, config.fold_seed)
    known = set(annotated_ids(store, hp))
    folds = splits.kfold(store, config.num_folds, config.fold_seed, known, store.groups())
    if not 0 <= config.fold < len(folds):
        raise DataError(f"fold {config.fold}: allowed are 0 to {len(folds) - 1}")
    val = folds[config.fold]
    if known and known <= set(val):
        raise DataError(
            f"{store.path}: fold {config.fold} of {config.num_folds} holds all {len(known)} "
            "annotated videos, and none is left to fit; annotate more videos"
        )
    return tuple(i for i in store.ids("train") if i not in set(val)), val


def visible_ids(
    store: FeatureStore, ids: tuple[str, ...], method: AnyMethod, hp: TrainParams
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the training videos, and of those whose annotations may be used."""
    if method.supervision == "point":
        return ids, ids
    if method.labels is None:  # learns only from features
        return ids, ()
    known = set(annotated_ids(store, hp))
    labelled = tuple(i for i in ids if i in known)
    return (ids if method.supervision == "semi" else labelled), labelled


def visible_points(
    store: FeatureStore,
    ids: tuple[str, ...],
    method: AnyMethod,
    truth: Callable[[], dict[str, Segments]],
) -> list[Points]:
    """Annotated points of each video, or the centres of its annotated instances."""
    if method.supervision == "point":
        return [store.points(i) for i in ids]
    if method.labels is None:
        return [Points(time_s=np.zeros(0), label=np.zeros(0, np.int64)) for _ in ids]
    return splits.centres(ids, truth())
