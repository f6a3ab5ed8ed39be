"""Which configuration to try next and which trial to stop: the part a sequential study needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ptal_ray.space.space import Scalar, SearchSpace
from ptal_ray.space.untried import Point, number_of_points, point, untried
from ptal_ray.study.view import TrialView


class Searcher(Protocol):
    """Suggests trials by number, from 0, and learns from their reports."""

    def restore(self, trials: Sequence[TrialView]) -> None:
        """Learns what an interrupted run of the study already did; called once, before others."""

    def suggest(self, number: int) -> dict[str, Scalar] | None:
        """The searched train parameters of a new trial, or None when there is no more to try."""

    def report(self, number: int, step: int, value: float) -> bool:
        """Takes the objective of a trial at a report step; returns whether to stop the trial."""

    def finish(self, number: int, state: str) -> None:
        """Takes the end of a trial: "complete", "pruned" or "failed"."""


class RandomSearcher:
    """The defaults first, then random configurations, with asynchronous successive halving.

    A trial goes on where its objective is among the best 1/eta of those reported at the same
    step so far (at least the best one). Suggestions depend on the seed and the number, and, where
    the space has a countable number of configurations, on those before: none comes twice.

    Args:
        space: what to search.
        seed: of the suggestions.
        num_trials: suggestions in all.
        stop_early: False lets every trial run to its end.

    Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning.
    """

    def __init__(
        self, space: SearchSpace, seed: int, num_trials: int, stop_early: bool = True
    ) -> None:
        self.space, self.seed, self.num_trials = space, seed, num_trials
        self.stop_early = stop_early
        self._rungs: dict[int, dict[int, float]] = {}  # step -> trial -> objective
        self._points: dict[int, Point | None] = {}  # of each trial, where they can be counted

    def restore(self, trials: Sequence[TrialView]) -> None:
        """Learns the configurations and the reports of an interrupted run."""
        for trial in trials:
            self._points[trial.number] = point(self.space.train, trial.params)
            for report in trial.reports:
                self._rungs.setdefault(report.step, {})[trial.number] = report.objective

    def suggest(self, number: int) -> dict[str, Scalar] | None:
        """The configuration of trial `number`; None after the last one."""
        if number >= self.num_trials:
            return None
        params = self._drawn(number)
        if number_of_points(self.space.train) is None:
            return params
        others = {taken for k, taken in self._points.items() if k != number}
        rng = np.random.default_rng([self.seed, number, 1])
        found = untried(self.space.train, params, others, rng)
        if found is not None:
            self._points[number] = point(self.space.train, found)
        return found

    def _drawn(self, number: int) -> dict[str, Scalar]:
        first = self.space.first_params() if number == 0 else None
        if first is not None:
            return first
        units = np.random.default_rng([self.seed, number]).random(len(self.space.train))
        drawn = zip(self.space.train.items(), units, strict=True)
        return {key: domain.sample(float(unit)) for (key, domain), unit in drawn}

    def report(self, number: int, step: int, value: float) -> bool:
        """Whether fewer than 1/eta of the trials at this step should be as good."""
        rung = self._rungs.setdefault(step, {})
        rung[number] = value
        kept = max(1, len(rung) // self.space.budget.eta)
        return self.stop_early and sum(v > value for v in rung.values()) >= kept

    def finish(self, number: int, state: str) -> None:
        """Nothing to learn beyond the reports."""
