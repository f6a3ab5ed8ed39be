"""The terms of a loss, summed on the device and read by the host once a report."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from ptal_ray.errors import DivergedError

POINTS = 8  # of a curve between two reports
Curves = dict[str, list[list[float]]]


class LossSums:
    """Sums of the loss between two reports, in stretches of equal length.

    Args:
        first, last: steps done at the last report and at the next one.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._every = first, max(1, math.ceil((last - first) / POINTS))
        self._names: tuple[str, ...] = ()
        self._sums: list[list[Tensor]] = []
        self._ends: list[int] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Takes the terms of the step after which `step` steps are done."""
        stretch = (step - 1 - self._first) // self._every
        if stretch < len(self._sums):
            old = self._sums[stretch]
            self._sums[stretch] = [a + b for a, b in zip(old, terms.values(), strict=True)]
            self._ends[stretch] = step
        else:
            self._names = tuple(terms)
            self._sums.append(list(terms.values()))
            self._ends.append(step)

    def read(self, world_size: int) -> tuple[dict[str, float], Curves]:
        """Mean of each term over steps and workers, and [step, mean of a stretch] of each; the only
        place a loss reaches the host.

        Raises:
            DivergedError: a mean is not finite.
        """
        sums = torch.stack([torch.stack(row).float() for row in self._sums])
        if world_size > 1:
            dist.all_reduce(sums)
            sums /= world_size
        counts = torch.tensor(self._ends) - torch.tensor([self._first, *self._ends[:-1]])
        plain = sums.cpu()
        means = dict(zip(self._names, (plain.sum(0) / counts.sum()).tolist(), strict=True))
        for name, value in means.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"train/loss_{name}: {value} by step {self._ends[-1]}; lower lr"
                )
        columns = (plain / counts[:, None]).T.tolist()
        rows = zip(self._names, columns, strict=True)
        return means, {
            name: [[step, value] for step, value in zip(self._ends, column, strict=True)]
            for name, column in rows
        }
