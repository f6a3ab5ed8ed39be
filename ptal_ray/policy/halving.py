"""Asynchronous successive halving: at each report step the best 1/eta so far continue."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


class Halving:
    """Decides which trials stop at a report step.

    A trial continues if its objective is at least the quantile 1 - 1/eta of the earlier objectives
    at the same step; the first trial always continues.

    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning; the quantile is
    that of Ray Tune's AsyncHyperBandScheduler.
    """

    def __init__(self, eta: int) -> None:
        self._kept = 1 - 1 / eta
        self._rungs: dict[int, dict[int, float]] = {}  # step -> trial -> objective

    def take(self, trial: int, step: int, value: float) -> bool:
        """Take the objective of a trial at a report step; returns whether the trial should stop."""
        rung = self._rungs.setdefault(step, {})
        others = [v for k, v in rung.items() if k != trial and math.isfinite(v)]
        rung[trial] = value
        if not others:
            return False
        return not value >= float(np.quantile(others, self._kept))

    def at(self, step: int) -> Mapping[int, float]:
        """The objectives at a step, by trial."""
        return self._rungs.get(step, {})
