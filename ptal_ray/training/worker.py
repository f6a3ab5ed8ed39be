"""One of the processes that share a trial, and the communication between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

Shared = TypeVar("Shared")


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process of a trial.

    Args:
        device: of the training.
        rank: from 0 on.
        world_size: number of processes; with several, torch.distributed is initialised and every
            rank makes the same calls.
    """

    device: torch.device = torch.device("cpu")
    rank: int = 0
    world_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether it is the only process of the trial."""
        return self.world_size == 1

    def mine(self, rows: NDArray[Any]) -> NDArray[Any]:
        """This worker's slice of the rows of a global batch."""
        share = len(rows) // self.world_size
        return rows[self.rank * share : (self.rank + 1) * share]

    def from_first(self, value: Shared) -> Shared:
        """The value of rank 0, on every worker."""
        shared = [value]
        if not self.alone:
            dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def gathered(self, own: list[Shared]) -> list[Shared]:
        """The values of all workers on rank 0; an empty list on the others."""
        if self.alone:
            return own
        parts: list[list[Shared] | None] | None = None
        if self.rank == 0:
            parts = [None] * self.world_size
        dist.gather_object(own, parts)
        return [item for part in parts or [] for item in part or []]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the workers, on every worker."""
        if self.alone:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world_size
