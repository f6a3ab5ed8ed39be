"""Early stopping of first cells: those far below the defaults, and those that are unlikely to
become the best, at steps whose objectives predict the last ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ptal_ray.ops import proxy
from ptal_ray.policy.halving import Halving

FEWEST_FULL = 4  # cells with a last objective, the defaults included, before a correlation counts
LEAST_CORRELATION = 0.3
LEAST_CHANCE = 0.05  # of becoming the best
FAR_BELOW = 1 / 3  # fraction of the objective of the defaults at the same step
FAR_BELOW_FROM = 0.3  # fraction of the last step from which this counts
LEAST_BELOW = 0.01  # difference to the defaults; less is noise
SMALLEST = 1e-6  # squared deviation from the regression: a tenth of a point of mAP

Floats = NDArray[np.float64]


class EarlyStop:
    """Stops cells that are far below the defaults after about a third of their steps. At report
    steps whose rank correlation with the last one was measured, it also stops those that
    successive halving would stop, and those that are unlikely to become the best.

    A cell that stopped far below the defaults counts in the correlation, once the defaults have
    ended, with the last objective that it would have at the same ratio to them. Otherwise only the
    better cells would count, and early objectives hardly predict their order.

    Args:
        report_steps: of every cell; the last one ends it.
        eta: at steps with stopping, the best 1/eta continue.
    """

    def __init__(self, report_steps: Sequence[int], eta: int) -> None:
        self._steps = tuple(report_steps)
        self._halving = Halving(eta)
        self._defaults: dict[int, float] = {}  # step -> objective
        self.far_below: dict[int, float] = {}  # cell stopped far below them -> ratio to them

    def take(self, cell: int, step: int, value: float, *, defaults: bool = False) -> bool:
        """Take an objective; returns whether the cell should stop.

        Args:
            cell: number of the trial, a first cell of its arm.
            step: report step.
            value: objective.
            defaults: whether it is that of the defaults, which never stop.
        """
        low = self.note(cell, step, value, defaults=defaults)
        if defaults or step >= self._steps[-1]:
            return False
        return cell in self.far_below or self._unlikely(step, value, low)

    def note(self, cell: int, step: int, value: float, *, defaults: bool = False) -> bool:
        """Take an objective without deciding whether the cell should stop, which costs more.

        Args:
            cell, step, value, defaults: see `take`.

        Returns:
            Whether the objective is low, as successive halving says.
        """
        low = self._halving.take(cell, step, value)
        if defaults:
            self._defaults[step] = value
            self._expect()
        elif step < self._steps[-1] and self._is_far_below(step, value):
            self.far_below[cell] = value / self._defaults[step]
            self._expect()
        return low

    def correlation(self, step: int) -> float | None:
        """Rank correlation of a report step with the last one, see `rank_correlation`."""
        return rank_correlation(self._halving.at(step), self._halving.at(self._steps[-1]))

    def _is_far_below(self, step: int, value: float) -> bool:
        """Whether an objective is a small fraction of that of the defaults, late enough."""
        late = step >= FAR_BELOW_FROM * self._steps[-1]
        plain = self._defaults.get(step, 0.0)
        return late and value < min(FAR_BELOW * plain, plain - LEAST_BELOW)

    def _expect(self) -> None:
        """Count the cells far below the defaults with the last objectives that are expected of
        them, once the defaults have one."""
        last = self._steps[-1]
        if last in self._defaults:
            for cell in self.far_below.keys() - self._halving.at(last).keys():
                self._halving.take(cell, last, self.far_below[cell] * self._defaults[last])

    def _unlikely(self, step: int, value: float, low: bool) -> bool:
        """Whether an objective at a step that predicts the last one is `low`, as successive halving
        says, or unlikely to lead to the best."""
        found = self.correlation(step)
        if found is None or found <= LEAST_CORRELATION:
            return False
        early, last = self._halving.at(step), self._halving.at(self._steps[-1])
        return low or chance(early, last, value) < min(LEAST_CHANCE, 0.5 / (len(last) + 1))


def chance(early: Mapping[int, float], last: Mapping[int, float], value: float) -> float:
    """Probability that a cell with `value` at an early step ends above all that reached the end.

    By a linear regression of the last objectives on the early ones, whose prediction has a t
    distribution. Without any relation each of n + 1 cells has a chance of 1 / (n + 1).

    Args:
        early, last: objectives at a report step and at the last one, by cell; three or more cells
            in both.
    """
    x, y = _both(early, last)
    apart = x - x.mean()
    squares = float(apart @ apart)
    if not squares or not math.isfinite(value):
        return 1.0
    slope = float(apart @ y) / squares
    left = y - y.mean() - slope * apart
    variance = (float(left @ left) + SMALLEST) / (len(x) - 2)
    off = value - x.mean()
    spread = np.sqrt(variance * (1 + 1 / len(x) + off**2 / squares))
    return float(stats.t.sf((y.max() - y.mean() - slope * off) / spread, len(x) - 2))


def rank_correlation(early: Mapping[int, float], last: Mapping[int, float]) -> float | None:
    """Rank correlation of two steps over the cells that reached both; 0 where all are equal.

    Args:
        early, last: objectives at a report step and at the last one, by cell.

    Returns:
        None for fewer than `FEWEST_FULL` cells.
    """
    x, y = _both(early, last)
    if len(x) < FEWEST_FULL:
        return None
    found = proxy.rank_correlation(x, y)
    return 0.0 if math.isnan(found) else found


def _both(early: Mapping[int, float], last: Mapping[int, float]) -> tuple[Floats, Floats]:
    """The objectives of the cells with finite ones in both."""
    pairs = [(early[k], last[k]) for k in sorted(early.keys() & last.keys())]
    kept = np.array([pair for pair in pairs if all(map(math.isfinite, pair))]).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]
