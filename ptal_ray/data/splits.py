"""Seeded, class-stratified parts of the official training split: to select on, to annotate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import IntArray, Points, Segments
from ptal_ray.errors import DataError


def fold(
    store: FeatureStore, fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits the training videos into those to fit and those to select on.

    The rarest class is dealt out first, then videos are swapped, so that where two videos have a
    class, and the fold is large enough, both sides see it. Uses the points of the training videos
    alone, or their annotations where the dataset has no points.

    Args:
        store: the dataset.
        fraction: share of the training videos to select on, in (0, 1).
        seed: which fold.

    Returns:
        (fit ids, validation ids), each in stored order and disjoint; both hold a video where
        there are two.
    """
    ids = store.ids("train")
    has = _classes(store, [store.points(i).label for i in ids])
    if not has.any():  # a dataset for full supervision
        has = _classes(store, [store.annotations(i).label for i in ids])
    number = min(max(round(fraction * len(ids)), 1), len(ids) - 1) if len(ids) > 1 else 0
    rng = np.random.default_rng([seed, 0xF01D])
    chosen = _repaired(has, _stratified(has, number, rng))
    fit = tuple(i for row, i in enumerate(ids) if not chosen[row])
    return fit, tuple(i for row, i in enumerate(ids) if chosen[row])


def labelled(
    store: FeatureStore, ids: Sequence[str], fraction: float, seed: int
) -> tuple[str, ...]:
    """The annotated videos among `ids`: a seeded, class-stratified part of the training split.

    The part is drawn from the whole training split, so that a search, which trains without a fold,
    and the final runs see annotations of the same videos.

    Args:
        store: the dataset.
        ids: training videos.
        fraction: share of the training split, in (0, 1]; at least one video.
        seed: which part.

    Returns:
        Ids in the order of `ids`. A class of two or more videos is in the part where the number
        allows.

    Raises:
        DataError: no training video has an annotated instance, or none of `ids` is in the part.
    """
    every = store.ids("train")
    has = _classes(store, [store.annotations(i).label for i in every])
    if not has.any():
        raise DataError(
            f"{store.path}: none of the {len(every)} training videos has an annotated instance; "
            "import annotations of the training split"
        )
    number = min(max(round(fraction * len(every)), 1), len(every))
    chosen = _stratified(has, number, np.random.default_rng([seed, 0x1ABE1]))
    part = {id for id, own in zip(every, chosen, strict=True) if own}
    found = tuple(i for i in ids if i in part)
    if not found:
        raise DataError(
            f"{store.path}: the {number} labelled videos are all in the selection fold; raise "
            "train.labelled_fraction, or choose another train.labelled_seed"
        )
    return found


def centres(ids: Sequence[str], truth: Mapping[str, Segments]) -> list[Points]:
    """The middles of the instances of each video in order of time; none where it has no entry."""
    found = []
    for id in ids:
        own = truth.get(id, Segments.empty())
        middle = (own.start_s + own.end_s) / 2
        order = np.argsort(middle, kind="stable")
        found.append(Points(time_s=middle[order], label=own.label[order]))
    return found


def _classes(store: FeatureStore, labels: Sequence[IntArray]) -> NDArray[np.bool_]:
    """(V, C) which classes each video has."""
    has = np.zeros((len(labels), store.info.num_classes), bool)
    for row, label in enumerate(labels):
        has[row, label] = True
    return has


def _stratified(has: NDArray[np.bool_], number: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Marks `number` rows in which classes are spread as in all rows."""
    count = has.sum(axis=0)
    share = number / max(len(has), 1)
    wanted = np.clip(np.rint(count * share), np.minimum(1, count - 1), np.maximum(count - 1, 0))
    chosen, dealt = np.zeros(len(has), bool), np.zeros(len(has), bool)
    order = rng.permutation(len(has))
    for label in np.argsort(count, kind="stable"):
        open_rows = order[has[order, label] & ~dealt[order]]
        missing = int(wanted[label]) - int(has[chosen, label].sum())
        chosen[open_rows[: max(0, min(missing, number - int(chosen.sum())))]] = True
        dealt[open_rows] = True
    rest = order[~chosen[order]]
    chosen[rest[: number - int(chosen.sum())]] = True
    return chosen


def _repaired(has: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Swaps rows across while that lets both sides see more classes."""
    while swap := _swap(has, chosen):
        chosen = chosen.copy()
        chosen[list(swap)] = ~chosen[list(swap)]
    return chosen


def _swap(has: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Two rows, one of either side, whose exchange leaves fewer classes unseen."""
    total, held = has.sum(axis=0), has[chosen].sum(axis=0)
    now = _unseen(held[None], total)[0]
    for side, sign in ((chosen, 1), (~chosen, -1)):
        own = np.flatnonzero(side)
        brings = ~side & has[:, ~has[side].any(axis=0)].any(axis=1)
        for row in np.flatnonzero(brings):
            after = held + sign * (has[row].astype(np.int64) - has[own])
            unseen = _unseen(after, total)
            if len(own) and unseen.min() < now:
                return int(row), int(own[unseen.argmin()])
    return None


def _unseen(held: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classes of two or more rows that all lie on one side, for each way of holding them (., C)."""
    apart = (held == 0) | (held == total)
    return np.asarray(apart[:, total >= 2].sum(axis=1))
