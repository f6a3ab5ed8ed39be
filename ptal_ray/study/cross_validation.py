"""The recommended configuration and the defaults, compared on folds of the training split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ptal_ray.study.event_types import FOLD
from ptal_ray.study.view import StudyView, Summary, summary_of
from ptal_ray.training.selection import objective_name

NOT_SEALED = "no test split: numbers are cross-validated; no test set was kept apart"
GATE = "gate"  # stage of trials of a race that are not used for any choice


@dataclass(frozen=True, kw_only=True)
class CrossValidated:
    """The objective of two configurations on held-out folds of the training split; fractions.

    Args:
        recommended, defaults: by cell, which determines fold and seed; equal if the defaults are
            recommended.
        fresh: whether these cells were used for no choice.
    """

    recommended: Mapping[int, float]
    defaults: Mapping[int, float]
    fresh: bool

    @property
    def arms(self) -> dict[str, Summary]:
        """Mean and standard deviation over cells of "recommended" and of "defaults"."""
        found = {"recommended": self.recommended, "defaults": self.defaults}
        return {arm: summary_of(list(own.values())) for arm, own in found.items() if own}

    @property
    def differences(self) -> list[float]:
        """Recommended minus defaults in each cell that both have; empty if they are the same."""
        if self.recommended == self.defaults:
            return []
        both = sorted(self.recommended.keys() & self.defaults.keys())
        return [self.recommended[k] - self.defaults[k] for k in both]


def cross_validated(view: StudyView) -> CrossValidated | None:
    """The cross-validated results of a study without a test split; None for any other study, or
    without results."""
    if view.has_test or view.recommended is None:
        return None
    if not any(trial.fold is not None for trial in view.trials):
        return _of_folds(view)
    return _of_cells(view)


def _of_folds(view: StudyView) -> CrossValidated | None:
    """From the runs of role "fold", which follow a search on a single fold."""
    selection = view.study.space["selection"]
    name = f"val/{objective_name(selection.get('metric', 'map'))}"
    found = {
        arm: {run.seed: run.metrics[name] for run in view.runs(FOLD, arm) if name in run.metrics}
        for arm in ("best", "default")
    }
    default = found["default"]
    best = found["best"] if view.runs(FOLD, "best") else default
    return CrossValidated(recommended=best, defaults=default, fresh=False) if default else None


def _of_cells(view: StudyView) -> CrossValidated | None:
    """From the cells of a race: those of its gate if both have some, else all."""
    best = view.recommended
    assert best is not None
    arm, setting = best.arm, best.setting
    gate = [_cells(view, a, s, GATE) for a, s in ((arm, setting), (0, 0))]
    if arm and all(gate):
        return CrossValidated(recommended=gate[0], defaults=gate[1], fresh=True)
    own, default = (_cells(view, a, s) for a, s in ((arm, setting), (0, 0)))
    return CrossValidated(recommended=own, defaults=default, fresh=False) if default else None


def _cells(view: StudyView, arm: int, setting: int, stage: str = "") -> dict[int, float]:
    """The objective of each complete cell of a configuration at a decode setting."""
    done = [t for t in view.trials if t.arm == arm and t.state == "complete" and t.reports]
    found = {
        t.cell: t.reports[-1].settings[setting]
        for t in done
        if stage in ("", t.stage) and setting < len(t.reports[-1].settings)
    }
    return {cell: value for cell, value in sorted(found.items()) if math.isfinite(value)}
