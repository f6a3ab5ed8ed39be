"""The race as the policy of a study: configurations for its arms, folds and seeds for its cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.policy.cells import GATE, SCREEN, Cell
from ptal_ray.policy.coordinates import coordinates
from ptal_ray.policy.early_stop import EarlyStop
from ptal_ray.policy.optuna_searcher import OptunaSearcher
from ptal_ray.policy.race import Race
from ptal_ray.policy.suggester import Suggester
from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import Recommendation, TrialEnd
from ptal_ray.study.policy import Suggestion, spent
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView, TrialView, in_order
from ptal_ray.training.decoding import decode_settings

SEED_STEP = 1000  # step between seeds of the cells of an arm; test runs use the seeds in between


class RacePolicy:
    """A trial is a cell of an arm, see `race.Race`; `num_trials` is its budget in full trials.

    Args:
        study: the study.
    """

    reselects = False

    def __init__(self, study: Study) -> None:
        self._study, space = study, study.space
        self._journal = OptunaSearcher(study)
        self._suggester = Suggester(study)
        self._params: list[dict[str, Scalar]] = []  # by arm
        self._cells: dict[int, Cell] = {}  # by trial
        self._trained = False  # whether the defaults have scores
        budget = space.budget
        self._early = (
            EarlyStop(budget.report_steps, budget.eta) if study.scheduler == "asha" else None
        )
        self._race = Race(
            budget=study.num_trials,
            num_folds=study.num_folds,
            seed=study.seed,
            propose=self._propose,
        )

    def restore(self, view: StudyView) -> set[int]:
        """Take the trials of an interrupted run; see `Policy`."""
        self._journal.restore(view.trials)
        for trial in view.trials:
            if trial.arm == len(self._params):
                self._params.append(trial.params)
                self._race.add(self._place(trial.params))
            cell = Cell(arm=trial.arm, index=trial.cell, stage=trial.stage)
            self._cells[trial.number] = cell
            self._race.begin(cell)
        stop = {}
        for trial, report in in_order(view.trials):
            if report:
                stop[trial.number] = self._stops(trial.number, report.step, report.objective)
            else:
                self._finish(trial.number, trial.state, *_last(trial), trial.crashed)
        return {t.number for t in view.trials if t.state == "running" and stop.get(t.number)}

    def spend(self, share: float) -> None:
        """Take the used fraction of the time."""
        self._race.time_share = share

    def suggest(self, number: int) -> Suggestion | None:
        """The next cell."""
        cell = self._race.next()
        if cell is None:
            return None
        params = self._params[cell.arm]
        self._cells[number] = cell
        self._journal.record(number, params, arm=cell.arm, cell=cell.index, stage=cell.stage)
        return Suggestion(
            params=params,
            arm=cell.arm,
            cell=cell.index,
            fold=(cell.index + self._study.seed) % self._study.num_folds,
            seed=self._study.seed + SEED_STEP * cell.index,
            stage=cell.stage,
        )

    def report(self, number: int, step: int, objective: float) -> bool:
        """Whether the cell stops early."""
        self._journal.report(number, step, objective)
        return self._stops(number, step, objective)

    def finish(self, end: TrialEnd, settings: tuple[float, ...], step: int) -> None:
        """Take the end of a cell."""
        self._journal.finish(end.trial, end.state)
        self._finish(end.trial, end.state, settings, step, end.crashed)

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Record facts in the journal."""
        self._journal.annotate(number, **attributes)

    def recommend(self, view: StudyView) -> Recommendation | None:
        """The configuration that passed the gate, else the defaults."""
        if not view.complete:
            return None
        found = self._race.verdict()
        params = self._params[found.arm] if found.arm else {}
        difference = found.difference
        return Recommendation(
            arm=found.arm,
            trial=self._first_trial(found.arm) if found.arm else None,
            params=params,
            decode=self._settings()[found.setting],
            setting=found.setting,
            verdict=found.verdict,
            difference={
                "mean": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "cells": difference.cells,
            },
            arms=tuple(self._beliefs(found.finalist)),
        )

    def _propose(self, arm: int, believed: NDArray[np.float64]) -> NDArray[np.float64] | None:
        params = self._suggester.suggest(arm, self._params, believed)
        if params is None:
            return None
        self._params.append(params)
        return self._place(params)

    def _place(self, params: dict[str, Scalar]) -> NDArray[np.float64]:
        return coordinates(self._study.space.train, params)

    def _stops(self, number: int, step: int, objective: float) -> bool:
        cell = self._cells[number]
        if self._early is None or cell.stage != SCREEN:
            return False
        return self._early.take(number, step, objective, defaults=cell.arm == 0)

    def _finish(
        self, number: int, state: str, settings: tuple[float, ...], step: int, crashed: bool
    ) -> None:
        cell = self._cells[number]
        if state == "complete" and np.isfinite(settings).all() and settings:
            self._trained |= cell.arm == 0
            self._race.tell(cell, np.array(settings))
        elif self._counts(cell, state, crashed):
            self._race.tell(cell, np.zeros(len(self._settings())))
        else:
            self._race.drop(cell, spent(state, step, self._study.space.budget.max_steps))

    def _counts(self, cell: Cell, state: str, crashed: bool) -> bool:
        """Whether a run without scores counts as 0: it diverged and is of the defaults, which stay,
        or of the gate, which counts all its runs. A process that was lost counts for nothing, but
        if the defaults lose another one and have no scores, they cannot be trained."""
        if cell.arm and cell.stage != GATE:
            return False
        if not crashed:
            return state in ("failed", "complete")
        return cell.arm == 0 and not self._trained and self._race.arms[0].stopped

    def _settings(self) -> list[dict[str, Any]]:
        """All decode parameters of every decode setting, the default first."""
        space = self._study.space
        start: Any = space.decode_params()
        selection = space.selection
        found = decode_settings(start, space.decode, selection.decode_settings, selection.fold_seed)
        return [vars(hp) | {} for hp in found]

    def _first_trial(self, arm: int) -> int:
        return min(number for number, cell in self._cells.items() if cell.arm == arm)

    def _beliefs(self, finalist: int) -> list[dict[str, Any]]:
        """The posterior of each arm, best first."""
        found = self._race.belief()
        rows = []
        for arm, params in enumerate(self._params):
            state = self._race.arms[arm]
            row: dict[str, Any] = {
                "arm": arm,
                "trial": self._first_trial(arm),
                "params": params,
                "cells": len(state.scores()),  # of which the posterior is
                "mean": None,
                "sd": None,
                "state": "stopped" if state.stopped else "finalist" if arm == finalist else "raced",
            }
            if found and arm in found[0]:
                k = found[0].index(arm)
                row |= {"mean": float(found[1].mean[k]), "sd": float(found[1].sd[k])}
            rows.append(row)
        return sorted(rows, key=lambda row: (row["mean"] is None, -(row["mean"] or 0.0)))


def _last(trial: TrialView) -> tuple[tuple[float, ...], int]:
    return trial.reports[-1].settings if trial.reports else (), trial.step
