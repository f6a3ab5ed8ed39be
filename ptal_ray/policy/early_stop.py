"""Early stopping of first cells, at steps whose objectives correlate with the last ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from ptal_ray.policy.halving import Halving

FEWEST_FULL = 4  # full runs before anything is stopped
LEAST_CORRELATION = 0.3


class EarlyStop:
    """Stops cells at the report steps whose rank correlation with the last one was measured.

    Args:
        report_steps: of every cell; the last one ends it.
        eta: at steps with stopping, the best 1/eta continue.
    """

    def __init__(self, report_steps: Sequence[int], eta: int) -> None:
        self._steps = tuple(report_steps)
        self._halving = Halving(eta)

    def take(self, cell: int, step: int, value: float) -> bool:
        """Take an objective; returns whether the cell should stop.

        Args:
            cell: number of the trial, a first cell of its arm.
            step: report step.
            value: objective.
        """
        low = self._halving.take(cell, step, value)
        if step >= self._steps[-1] or not low:
            return False
        found = rank_correlation(self._halving.at(step), self._halving.at(self._steps[-1]))
        return found is not None and found > LEAST_CORRELATION


def rank_correlation(early: Mapping[int, float], last: Mapping[int, float]) -> float | None:
    """Rank correlation of two steps over the cells that reached both; 0 where all are equal.

    Args:
        early, last: objectives at a report step and at the last one, by cell.

    Returns:
        None for fewer than `FEWEST_FULL` cells.
    """
    both = sorted(early.keys() & last.keys())
    if len(both) < FEWEST_FULL:
        return None
    ranks = stats.rankdata([[early[k], last[k]] for k in both], axis=0)
    ranks -= ranks.mean(axis=0)
    norm = np.sqrt((ranks**2).sum(axis=0).prod())
    return float(ranks.prod(axis=1).sum() / norm) if norm else 0.0
