"""The selection fold: a seeded, class-stratified part of the official training split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore


def fold(
    store: FeatureStore, fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits the training videos into those to fit and those to select on.

    The rarest class is dealt out first, then videos are swapped, so that where two videos have a
    class, and the fold is large enough, both sides see it. Uses the points of the training videos
    alone.

    Args:
        store: the dataset.
        fraction: share of the training videos to select on, in (0, 1).
        seed: which fold.

    Returns:
        (fit ids, validation ids), each in stored order and disjoint; both hold a video where
        there are two.
    """
    ids = store.ids("train")
    has = np.zeros((len(ids), store.info.num_classes), bool)
    for row, id in enumerate(ids):
        has[row, store.points(id).label] = True
    number = min(max(round(fraction * len(ids)), 1), len(ids) - 1) if len(ids) > 1 else 0
    rng = np.random.default_rng([seed, 0xF01D])
    chosen = _repaired(has, _stratified(has, number, rng))
    fit = tuple(i for row, i in enumerate(ids) if not chosen[row])
    return fit, tuple(i for row, i in enumerate(ids) if chosen[row])


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
