"""Seeded, class-stratified parts of the official training split: to select on, to annotate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import IntArray, Points, Segments
from ptal_ray.errors import DataError


def fold(
    store: FeatureStore, fraction: float, seed: int, labelled: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits the training videos into those to fit and those to select on.

    The rarest class is dealt out first, then videos are swapped, so that where two videos have a
    class, and the fold is large enough, both sides see it. Uses the points of the training videos
    alone, or their annotations where the dataset has no points.

    Args:
        store: the dataset.
        fraction: share of the training videos to select on, in (0, 1).
        seed: which fold.
        labelled: ids of those videos whose annotations are read; both sides have the same share of
            them, but that one stays to fit.

    Returns:
        (fit ids, validation ids), each in stored order and disjoint; both hold a video where
        there are two.
    """
    ids = store.ids("train")
    has = _classes(store, [store.points(i).label for i in ids])
    if not has.any():  # a dataset for full supervision
        has = _classes(store, [store.annotations(i).label for i in ids])
    number = min(max(round(fraction * len(ids)), 1), len(ids) - 1) if len(ids) > 1 else 0
    kind = np.array([id in labelled for id in ids], bool)
    known = int(kind.sum())
    share = min(round(number * known / max(len(ids), 1)), max(known - 1, 0))
    rng = np.random.default_rng([seed, 0xF01D])
    chosen = np.zeros(len(ids), bool)
    for rows, size in ((~kind, number - share), (kind, share)):
        chosen[rows] = _stratified(has[rows], min(size, int(rows.sum())), 1, rng)
    chosen = _repaired(has, chosen, kind)
    fit = tuple(i for row, i in enumerate(ids) if not chosen[row])
    return fit, tuple(i for row, i in enumerate(ids) if chosen[row])


def labelled(store: FeatureStore, fraction: float, seed: int) -> tuple[str, ...]:
    """The annotated videos: a seeded, class-stratified part of the training split.

    Args:
        store: the dataset.
        fraction: share of the training split, in (0, 1]; at least one video.
        seed: which part.

    Returns:
        Ids in stored order. Every class is in the part where the number allows, the rarest first.

    Raises:
        DataError: no training video has an annotated instance.
    """
    every = store.ids("train")
    has = _classes(store, [store.annotations(i).label for i in every])
    if not has.any():
        raise DataError(
            f"{store.path}: none of the {len(every)} training videos has an annotated instance; "
            "import annotations of the training split"
        )
    number = min(max(round(fraction * len(every)), 1), len(every))
    chosen = _stratified(has, number, 0, np.random.default_rng([seed, 0x1ABE1]))
    return tuple(id for id, own in zip(every, chosen, strict=True) if own)


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


def _stratified(
    has: NDArray[np.bool_], number: int, spared: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Marks `number` rows in which classes are spread as in all rows; each has one if possible.

    Args:
        has: (V, C) which classes each row has.
        number: of rows to mark.
        spared: rows of each class that stay unmarked.
        rng: of the order.
    """
    count = has.sum(axis=0)
    share = number / max(len(has), 1)
    most = np.maximum(count - spared, 0)
    wanted = np.clip(np.rint(count * share), np.minimum(1, most), most)
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


def _repaired(
    has: NDArray[np.bool_], chosen: NDArray[np.bool_], kind: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Swaps rows of one kind across while that lets both sides see more classes."""
    while swap := _swap(has, chosen, kind):
        chosen = chosen.copy()
        chosen[list(swap)] = ~chosen[list(swap)]
    return chosen


def _swap(
    has: NDArray[np.bool_], chosen: NDArray[np.bool_], kind: NDArray[np.bool_]
) -> tuple[int, int] | None:
    """Two rows of one kind, one of either side, whose exchange leaves fewer classes unseen."""
    total, held = has.sum(axis=0), has[chosen].sum(axis=0)
    now = _unseen(held[None], total)[0]
    for side, sign in ((chosen, 1), (~chosen, -1)):
        brings = ~side & has[:, ~has[side].any(axis=0)].any(axis=1)
        for row in np.flatnonzero(brings):
            own = np.flatnonzero(side & (kind == kind[row]))
            after = held + sign * (has[row].astype(np.int64) - has[own])
            unseen = _unseen(after, total)
            if len(own) and unseen.min() < now:
                return int(row), int(own[unseen.argmin()])
    return None


def _unseen(held: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classes of two or more rows that all lie on one side, for each way of holding them (., C)."""
    apart = (held == 0) | (held == total)
    return np.asarray(apart[:, total >= 2].sum(axis=1))
