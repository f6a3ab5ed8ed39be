"""Asynchronous successive halving: at each report step the best 1/eta so far go on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


class Halving:
    """Which trials stop at a report step.

    A trial goes on where its objective is at least the quantile 1 - 1/eta of what others reported
    at the same step before it; the first one always does.

    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning; the quantile is
    that of Ray Tune's AsyncHyperBandScheduler.
    """

    def __init__(self, eta: int) -> None:
        self._kept = 1 - 1 / eta
        self._rungs: dict[int, dict[int, float]] = {}  # step -> trial -> objective

    def take(self, trial: int, step: int, value: float) -> bool:
        """Takes the objective of a trial at a report step; whether the trial should stop."""
        rung = self._rungs.setdefault(step, {})
        others = [v for k, v in rung.items() if k != trial and math.isfinite(v)]
        rung[trial] = value
        if not others:
            return False
        return not value >= float(np.quantile(others, self._kept))

    def at(self, step: int) -> Mapping[int, float]:
        """What was reported at a step, by trial."""
        return self._rungs.get(step, {})
