"""The videos in the global batch of a step, and the crop of each.

Stateless: batches depend only on (seed, step), so they are equal in a resumed trial and in workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The order of the videos of a split in training.

    If the split is smaller than the requested batch, the batch size is the largest power of two
    that fits, so that it can still be divided among workers. With several kinds of video the
    size of the largest kind counts.

    Args:
        groups: rows of each kind of video. A batch has equally many of each kind, interleaved. A
            pass over the last kind is an epoch; the other kinds are repeated, and so is the last
            kind if it is smaller than its part of a batch.
        asked_batch_size: requested videos of each kind in a global batch.
        seed: of the order.
    """

    groups: tuple[NDArray[np.int64], ...]
    asked_batch_size: int
    seed: int

    @property
    def group_size(self) -> int:
        """Videos of each kind in a global batch."""
        number = max(len(rows) for rows in self.groups)
        if self.asked_batch_size <= number:
            return self.asked_batch_size
        power: int = 1 << (number.bit_length() - 1)
        return power

    @property
    def batch_size(self) -> int:
        """Videos in a global batch."""
        return self.group_size * len(self.groups)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass, at least one; the rest of a permutation is dropped."""
        return max(len(self.groups[-1]) // self.group_size, 1)

    def rows(self, step: int) -> NDArray[np.int64]:
        """(batch_size,) rows of the split in the global batch of `step`."""
        last, size = len(self.groups) - 1, self.group_size
        chosen = [self._running(kind, step) for kind in range(last)]
        if len(self.groups[last]) < size:
            chosen.append(self._running(last, step))
        else:
            epoch, index = divmod(step, self.steps_per_epoch)
            chosen.append(self._order(last, epoch)[index * size : (index + 1) * size])
        return np.stack(chosen, axis=1).reshape(-1)

    def _order(self, kind: int, epoch: int) -> NDArray[np.int64]:
        """The rows of one kind as one pass visits them."""
        stream = [1] if kind == len(self.groups) - 1 else [4, kind]
        shuffle = np.random.default_rng([self.seed, *stream, epoch]).permutation
        return self.groups[kind][shuffle(len(self.groups[kind]))]

    def _running(self, kind: int, step: int) -> NDArray[np.int64]:
        """The rows of one kind in the batch of `step`, pass after pass without a gap."""
        number, size = len(self.groups[kind]), self.group_size
        first, last = step * size // number, ((step + 1) * size - 1) // number
        passes = np.concatenate([self._order(kind, epoch) for epoch in range(first, last + 1)])
        start = step * size - first * number
        return passes[start : start + size]

    def draws(self, step: int, number: int) -> NDArray[np.float64]:
        """(batch_size, number) uniform in [0, 1), for snippets sampled at random at `step`."""
        generator = np.random.default_rng([self.seed, 5, step])
        return generator.random((self.batch_size, number))

    def crops(
        self,
        step: int,
        lengths: NDArray[np.int64],
        point_t: NDArray[np.int64],
        max_snippets: int,
        shortest: float = 1.0,
        more_points: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The crops of a batch; every crop contains a point.

        Args:
            step: optimiser step.
            lengths: (B,) snippets of the videos of the global batch.
            point_t: (B, P) their annotated snippets, -1 pads.
            max_snippets: longest crop.
            shortest: videos of at most `max_snippets` are cropped to a random fraction in
                [shortest, 1].
            more_points: a crop contains more than this fraction of the points of its video, if one
                of 500 random positions does.

        Returns:
            (B,) first snippet, 0 for videos that are not cropped, and (B,) number of snippets.

        Source: the fractions: ActionFormer code, POTLoc code; golden potloc_model.
        """
        generator = np.random.default_rng([self.seed, 2, step])
        random = generator.random((len(lengths), 2))
        size = np.minimum(lengths, max_snippets)
        if shortest < 1:
            low = np.maximum(np.round(shortest * lengths), 1).astype(np.int64)
            drawn = low + np.floor(generator.random(len(lengths)) * (lengths - low + 1))
            size = np.where(lengths <= max_snippets, drawn.astype(np.int64), size)
        room = lengths - size
        start = np.floor(random[:, 0] * (room + 1)).astype(np.int64)
        if more_points:
            places = np.floor(generator.random((len(lengths), 500)) * (room[:, None] + 1))
            start = first_place(places.astype(np.int64), size, point_t, more_points)
        count = (point_t >= 0).sum(axis=1)
        chosen = np.minimum((random[:, 1] * count).astype(np.int64), np.maximum(count - 1, 0))
        point = point_t[np.arange(len(point_t)), chosen]
        inside = (point_t >= start[:, None]) & (point_t < (start + size)[:, None])
        around = np.clip(point - np.floor(random[:, 0] * size).astype(np.int64), 0, room)
        first: NDArray[np.int64] = np.where(inside.any(axis=1) | (count == 0), start, around)
        return first, size


def first_place(
    places: NDArray[np.int64],
    size: NDArray[np.int64],
    point_t: NDArray[np.int64],
    more_points: float,
) -> NDArray[np.int64]:
    """The first position whose crop contains more than a fraction of the points, else the last.

    Args:
        places: (B, N) first snippets.
        size: (B,) snippets of the crops.
        point_t: (B, P), -1 pads.
        more_points: the fraction.

    Returns:
        (B,) first snippets.
    """
    within = np.zeros(places.shape, np.int64)
    for point in point_t.T[..., None]:
        within += (point >= places) & (point < places + size[:, None]) & (point >= 0)
    enough = within > more_points * (point_t >= 0).sum(axis=1, keepdims=True)
    index = np.where(enough.any(axis=1), enough.argmax(axis=1), places.shape[1] - 1)
    found: NDArray[np.int64] = places[np.arange(len(places)), index]
    return found
