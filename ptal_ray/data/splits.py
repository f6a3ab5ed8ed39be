"""Seeded, class-stratified parts of the official training split, for selection or annotation."""

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

    The rarest class is assigned first, then videos are swapped, so that a class of two or more
    videos is on both sides if the fold is large enough. Uses only the points of the training
    videos, or their annotations if the dataset has no points. Videos of one group may be on both
    sides, unlike in `kfold`.

    Args:
        store: the dataset.
        fraction: share of the training videos to select on, in (0, 1).
        seed: which fold.
        labelled: ids of the videos whose annotations are read; both sides have the same fraction
            of them, but at least one is on the side to fit.

    Returns:
        (fit ids, validation ids), each in stored order and disjoint; neither is empty if there
        are two videos.
    """
    ids = store.ids("train")
    has = _seen(store, ids)
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


def kfold(
    store: FeatureStore,
    num_folds: int,
    seed: int,
    labelled: Collection[str] = (),
    groups: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], ...]:
    """Splits the training videos into `num_folds` parts to select on, one after the other.

    Every training video is in exactly one part. The rarest class is assigned first, each group
    to the part that lacks most of the class. Then groups are swapped while a class of several
    groups is in only one part, so that the other parts contain the class for training. If every
    group is one video, the numbers of videos differ by at most one.

    Args:
        store: the dataset.
        num_folds: K, 2 or more.
        seed: which partition.
        labelled: ids of the videos whose annotations are read; assigned like a class.
        groups: group by video id; a group is never split; a video without a group is its own
            group. If all training videos are of one group, its videos are divided.

    Returns:
        K tuples of ids, each in stored order and not empty.

    Raises:
        DataError: there are fewer groups than parts, or `num_folds` is below 2.
    """
    ids = store.ids("train")
    unit = _units(ids, groups or {})
    number = len(set(unit.tolist()))
    if not 2 <= num_folds <= number:
        allowed = f"2 to {number}" if number > 2 else "2"
        raise DataError(
            f"{store.path}: {num_folds} folds of {len(ids)} training videos in {number} groups; "
            f"allowed are {allowed} folds, because a group is never split"
        )
    known = np.array([[i in labelled] for i in ids])
    seen = np.hstack([_seen(store, ids), known, np.ones_like(known)])  # last: that it is a video
    count = np.zeros((number, seen.shape[1]), np.int64)
    np.add.at(count, unit, seen)
    part = _dealt(count, num_folds, np.random.default_rng([seed, 0xCF01D]))
    part = _spread(count, part, num_folds)[unit]
    return tuple(
        tuple(i for i, own in zip(ids, part, strict=True) if own == k) for k in range(num_folds)
    )


def most_folds(store: FeatureStore) -> int:
    """The largest number of folds of the training videos that `kfold` can make.

    It is the number of groups, counting a video without a group as one; the number of videos if all
    are of one group.
    """
    return len(set(_units(store.ids("train"), store.groups()).tolist()))


def only_group(store: FeatureStore) -> str:
    """The group of all training videos, if there are two or more of them; else ""."""
    ids, groups = store.ids("train"), store.groups()
    found = {groups.get(id, "") for id in ids}
    return found.pop() if len(found) == 1 and len(ids) > 1 else ""


def labelled(store: FeatureStore, fraction: float, seed: int) -> tuple[str, ...]:
    """The annotated videos: a seeded, class-stratified part of the training split.

    Args:
        store: the dataset.
        fraction: of the training split, in (0, 1]; at least one video.
        seed: which part.

    Returns:
        Ids in stored order. Every class is in the part if it is large enough, the rarest first.

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


def _units(ids: Sequence[str], groups: Mapping[str, str]) -> NDArray[np.int64]:
    """(V,) for each video the number of its unit, which folds do not split: its group or itself.

    If all videos are of one group, each video is a unit.
    """
    names = [("group", groups[i]) if i in groups else ("video", i) for i in ids]
    if len(set(names)) == 1:
        return np.arange(len(ids))
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    return np.array([rows[name] for name in names], np.int64)


def _seen(store: FeatureStore, ids: Sequence[str]) -> NDArray[np.bool_]:
    """(V, C) which classes each training video has, by its points or by its annotations."""
    has = _classes(store, [store.points(i).label for i in ids])
    if not has.any():  # a dataset for full supervision
        has = _classes(store, [store.annotations(i).label for i in ids])
    return has


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


def _dealt(count: NDArray[np.int64], parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(G,) the part of each group: parts have about as many videos, in all and of each class.

    Args:
        count: (G, C) videos of each class in each group; last, all its videos.
        parts: how many.
        rng: of the order, and of the choice between equal parts.
    """
    total = count.sum(axis=0)
    lacks = np.tile(total / parts, (parts, 1))
    videos = int(total[-1])
    room = rng.permutation(videos // parts + (np.arange(parts) < videos % parts))
    order, luck = rng.permutation(len(count)), rng.random((len(count), parts))
    part = np.full(len(count), -1)
    for label in np.argsort(total, kind="stable"):
        due = order[(part[order] < 0) & (count[order, label] > 0)]
        for row in due[np.argsort(-count[due, label], kind="stable")]:
            excess = np.maximum(count[row, -1] - room, 0)
            others = (lacks * (count[row] > 0) / np.maximum(total, 1)).sum(axis=1)
            best = np.lexsort((luck[row], -room, -others, -lacks[:, label], excess))[0]
            part[row] = best
            lacks[best] -= count[row]
            room[best] -= count[row, -1]
    return part


def _spread(count: NDArray[np.int64], part: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Swaps groups of two parts while that leaves fewer classes in one part alone."""
    while swap := _exchange(count, part, parts):
        part = part.copy()
        part[list(swap)] = part[list(swap[::-1])]
    return part


def _exchange(
    count: NDArray[np.int64], part: NDArray[np.int64], parts: int
) -> tuple[int, int] | None:
    """Two groups of different parts whose exchange leaves fewer classes in one part alone."""
    has = (count > 0).astype(np.int64)
    total = has.sum(axis=0)
    held = np.zeros((parts, len(total)), np.int64)
    np.add.at(held, part, has)

    def alone(held: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a part holds all groups of a class that two or more groups have."""
        return np.asarray((held == total) & (total >= 2))

    for own, label in np.argwhere(alone(held)):
        others = np.flatnonzero(part != own)
        for row in np.flatnonzero(has[:, label] & (part == own)):
            brings, theirs = has[others] - has[row], held[part[others]]
            before = alone(held[own]).sum() + alone(theirs).sum(axis=1)
            after = alone(held[own] + brings).sum(axis=1) + alone(theirs - brings).sum(axis=1)
            uneven = np.abs(count[others, -1] - count[row, -1])
            best = np.lexsort((uneven, after - before))[0]
            if after[best] < before[best]:
                return int(row), int(others[best])
    return None
