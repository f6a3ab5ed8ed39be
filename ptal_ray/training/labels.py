"""The pseudo-labels of a training split: one row per video, refreshed when R steps old."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ptal_ray.methods.method import Pseudo


class LabelTable:
    """Pseudo-labels by row of the split, the same on every worker of a trial.

    Args:
        num_videos: V, rows of the split.
        refresh_every: R, the age in steps at which a label is stale.
        device: of the labels.
    """

    def __init__(self, num_videos: int, refresh_every: int, device: torch.device) -> None:
        self.num_videos, self.refresh_every, self.device = num_videos, refresh_every, device
        self.tables: Pseudo | None = None
        self.renewed_at = np.full(num_videos, -1, np.int64)  # step; -1: never

    def stale(self, rows: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        """Whether each of `rows` has no labels, or labels that are at least R steps old."""
        renewed_at = self.renewed_at[rows]
        return (renewed_at < 0) | (step - renewed_at >= self.refresh_every)

    def at(self, index: torch.Tensor) -> Pseudo | None:
        """The labels of the rows `index` (B,); None before the first refresh."""
        return None if self.tables is None else {k: v[index] for k, v in self.tables.items()}

    def store(self, rows: NDArray[np.int64], fresh: Pseudo) -> None:
        """Store the refreshed labels of `rows`."""
        if self.tables is None:
            self.tables = {
                k: torch.zeros((self.num_videos, *v.shape[1:]), dtype=v.dtype, device=v.device)
                for k, v in fresh.items()
            }
        index = torch.from_numpy(rows).to(self.device)
        for name, value in fresh.items():
            self.tables[name][index] = value

    def renew(self, rows: NDArray[np.int64], step: int) -> None:
        """Record that the labels of `rows` are from `step`."""
        self.renewed_at[rows] = step

    def fill(self, labels: Pseudo) -> None:
        """Store the labels of all rows; they never become stale."""
        self.tables = {k: v.to(self.device) for k, v in labels.items()}

    def exchange(self, rows: NDArray[np.int64], mine: NDArray[np.int64], world_size: int) -> None:
        """Share the labels that each worker computed for its part of the batch `rows` with all
        workers."""
        assert self.tables is not None  # at the first step every row of a batch is stale
        index, own = (torch.from_numpy(r).to(self.device) for r in (rows, mine))
        for table in self.tables.values():
            parts = [torch.empty_like(table[own]) for _ in range(world_size)]
            dist.all_gather(parts, table[own].contiguous())
            table[index] = torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """The state for `load_state_dict`."""
        return {"tables": self.tables, "renewed_at": torch.from_numpy(self.renewed_at)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self.tables = state["tables"]
        self.renewed_at = state["renewed_at"].cpu().numpy().copy()
