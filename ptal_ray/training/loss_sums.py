"""The terms of a loss, summed on the device and read by the host once per report."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from ptal_ray.errors import DivergedError

POINTS = 8  # points of a curve between two reports
Curves = dict[str, list[list[float]]]


class LossSums:
    """Sums of the loss between two reports, in intervals of equal length.

    Args:
        first, last: steps done at the last report and at the next one.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._every = first, max(1, math.ceil((last - first) / POINTS))
        self._sums: list[dict[str, Tensor]] = []
        self._ends: list[int] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Add the terms of the step after which `step` steps are done; their names may change."""
        stretch = (step - 1 - self._first) // self._every
        if stretch == len(self._sums):
            self._sums.append({})
            self._ends.append(step)
        sums, self._ends[stretch] = self._sums[stretch], step
        for name, term in terms.items():
            sums[name] = sums[name] + term if name in sums else term

    def read(self, world_size: int) -> tuple[dict[str, float], Curves]:
        """Mean of each term over steps and workers, and [step, mean of an interval] of each. Only
        here does a loss reach the host.

        Raises:
            DivergedError: a mean is not finite.
        """
        names = list(dict.fromkeys(name for sums in self._sums for name in sums))
        zero = torch.zeros_like(self._sums[-1][names[0]])
        rows = [torch.stack([sums.get(name, zero) for name in names]) for sums in self._sums]
        table = torch.stack(rows).float()
        if world_size > 1:
            dist.all_reduce(table)
            table /= world_size
        steps = torch.tensor(self._ends) - torch.tensor([self._first, *self._ends[:-1]])
        table = table.cpu()
        means = dict(zip(names, (table.sum(0) / steps.sum()).tolist(), strict=True))
        for name, value in means.items():
            if not math.isfinite(value):
                by = self._ends[-1]
                raise DivergedError(f"train/loss_{name}: {value} by step {by}; lower lr")
        return means, self._curves(names, (table / steps[:, None]).tolist())

    def _curves(self, names: list[str], values: list[list[float]]) -> Curves:
        """One point per interval in which the term was part of the loss."""
        stretches = list(zip(self._ends, self._sums, values, strict=True))
        return {
            name: [[end, row[k]] for end, sums, row in stretches if name in sums]
            for k, name in enumerate(names)
        }
