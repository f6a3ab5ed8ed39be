"""What a report says that early stopping found."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import SyntheticStudy

from ptal_ray.reporting.early_stopping import early_stopping, early_stopping_text
from ptal_ray.study.view import StudyView, TrialView

EARLY = (0.4, 0.1, 0.3, 0.2)
LAST = (0.8, 0.5, 0.6, 0.7)  # with the defaults, their ranks correlate by 0.9


@pytest.fixture
def view(tmp_path: Path) -> StudyView:
    """A race with the defaults, four full runs, one that was stopped and one further cell."""
    study = SyntheticStudy(tmp_path / "apn_demo-20260801-120000")
    study.begin()
    for number in range(7):
        study.trial(number, "pruned" if number == 5 else "complete")
    found = StudyView.read(study.directory)
    scores = [(0.9, 0.9), *zip(EARLY, LAST, strict=True), (0.0, 0.0), (9.0, 0.0)]
    trials = [_cell(t, *scores[t.number]) for t in found.trials]
    start = replace(found.study, space=found.study.space | {"policy": "race"})
    return replace(found, start=start, trials=tuple(trials))


def _cell(trial: TrialView, early: float, last: float) -> TrialView:
    """A trial with these objectives at its first report and at the others; trial 0 is of the
    defaults, trial 6 is no first one."""
    reports = tuple(replace(r, objective=last if k else early) for k, r in enumerate(trial.reports))
    return replace(trial, stage="race" if trial.number == 6 else "screen", reports=reports)


def test_the_report_says_whether_early_objectives_told_of_the_last_ones(view: StudyView) -> None:
    found = early_stopping(view)
    assert found is not None and (found["full_runs"], found["stopped"]) == (5, 1)
    assert [row["step"] for row in found["correlations"]] == [10, 30]
    assert [row["correlation"] for row in found["correlations"]] == pytest.approx([0.9, 1.0])
    assert early_stopping_text(view) == (
        "Early stopping: the rank correlation with the last step was 0.90 at step 10 and 1.00 at "
        "step 30, over 5 full runs. 1 trial was stopped."
    )


def test_too_few_full_runs_are_said(view: StudyView) -> None:
    few = replace(view, trials=view.trials[:3])
    found = early_stopping(few)
    assert found is not None and found["full_runs"] == 3
    assert [row["correlation"] for row in found["correlations"]] == [None, None]
    assert early_stopping_text(few) == (
        "Early stopping: the rank correlation with the last step needs 4 trials, full runs or "
        "far below the defaults, and had 3 full runs. 0 trials were stopped."
    )


def test_runs_without_a_finite_objective_do_not_count(view: StudyView) -> None:
    broken = replace(view, trials=(*view.trials[:3], _cell(view.trials[3], 0.2, math.nan)))
    found = early_stopping(broken)
    assert found is not None and found["full_runs"] == 3
    assert "needs 4 trials" in early_stopping_text(broken)
    late = replace(view, trials=(*view.trials[:3], _cell(view.trials[3], math.nan, 0.7)))
    assert "was unknown at step 10 and 1.00 at step 30, over 4 full" in early_stopping_text(late)


def test_nothing_is_said_without_early_stopping(view: StudyView) -> None:
    for change in ({"scheduler": "none"}, {"space": view.study.space | {"policy": "simple"}}):
        other = replace(view, start=replace(view.study, **change))  # type: ignore[arg-type]
        assert early_stopping(other) is None and early_stopping_text(other) == ""
