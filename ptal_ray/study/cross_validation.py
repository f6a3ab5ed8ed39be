"""What the folds of the training split say of what a study recommends, against the defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ptal_ray.study.finals import FOLD
from ptal_ray.study.view import StudyView, Summary, summary_of
from ptal_ray.training.selection import objective_name

NOT_SEALED = "no test split: numbers are cross-validated; no test set was kept apart"
GATE = "gate"  # stage of the trials of a race by which nothing was chosen


@dataclass(frozen=True, kw_only=True)
class CrossValidated:
    """The objective of two configurations on held-out folds of the training split; fractions.

    Args:
        recommended, defaults: by cell, which says fold and seed; the same where the defaults are
            recommended.
        fresh: whether no choice was made by these cells.
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
        """Recommended minus defaults in each cell that both have; empty where they are one."""
        if self.recommended == self.defaults:
            return []
        both = sorted(self.recommended.keys() & self.defaults.keys())
        return [self.recommended[k] - self.defaults[k] for k in both]


def cross_validated(view: StudyView) -> CrossValidated | None:
    """The cross-validated figures of a study without a test split; None for any other study, or
    before there are any."""
    if view.has_test or view.recommended is None:
        return None
    if not any(trial.fold is not None for trial in view.trials):
        return _of_folds(view)
    return _of_cells(view)


def _of_folds(view: StudyView) -> CrossValidated | None:
    """By the runs of role "fold", which a search on one fold is followed by."""
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
    """By the cells of a race: those of its gate, where both met there, else all they have."""
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
