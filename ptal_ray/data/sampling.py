"""Which videos, and which crop of each, make the global batch of a step.

Stateless: everything follows from (seed, step), so a resumed trial and every worker agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The order in which a split of `num_videos` is visited.

    A split smaller than the asked batch uses the largest power of two that fits, so that the
    batch still divides among workers.
    """

    num_videos: int
    asked_batch_size: int
    seed: int

    @property
    def batch_size(self) -> int:
        """Videos in a global batch."""
        if self.asked_batch_size <= self.num_videos:
            return self.asked_batch_size
        power: int = 1 << (self.num_videos.bit_length() - 1)
        return power

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass; the rest of a permutation is dropped."""
        return self.num_videos // self.batch_size

    def rows(self, step: int) -> NDArray[np.int64]:
        """(batch_size,) rows of the split in the global batch of `step`."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(self.num_videos)
        rows: NDArray[np.int64] = order[index * self.batch_size : (index + 1) * self.batch_size]
        return rows

    def crops(
        self,
        step: int,
        lengths: NDArray[np.int64],
        point_t: NDArray[np.int64],
        max_snippets: int,
    ) -> NDArray[np.int64]:
        """First snippet of each crop of at most `max_snippets`; every crop holds a point.

        Args:
            step: optimiser step.
            lengths: (B,) snippets of the videos of the global batch.
            point_t: (B, P) their annotated snippets, -1 pads.
            max_snippets: longest crop.

        Returns:
            (B,) first snippets, 0 for videos that are short enough.
        """
        random = np.random.default_rng([self.seed, 2, step]).random((len(lengths), 2))
        room = np.maximum(lengths - max_snippets, 0)
        start = np.floor(random[:, 0] * (room + 1)).astype(np.int64)
        count = (point_t >= 0).sum(axis=1)
        chosen = np.minimum((random[:, 1] * count).astype(np.int64), np.maximum(count - 1, 0))
        point = point_t[np.arange(len(point_t)), chosen]
        inside = (point_t >= start[:, None]) & (point_t < (start + max_snippets)[:, None])
        around = np.clip(point - np.floor(random[:, 0] * max_snippets).astype(np.int64), 0, room)
        first: NDArray[np.int64] = np.where(inside.any(axis=1) | (count == 0), start, around)
        return first
