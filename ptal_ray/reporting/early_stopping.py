"""What early stopping of a race found: whether early objectives told of the last ones."""

from __future__ import annotations

import math
from typing import Any

from ptal_ray.policy.cells import SCREEN
from ptal_ray.policy.early_stop import FEWEST_FULL, EarlyStop
from ptal_ray.process.words import counted
from ptal_ray.study.view import StudyView, in_order, resolved_space


def early_stopping(view: StudyView) -> dict[str, Any] | None:
    """What early stopping did to the first trials of configurations, JSON-able.

    Returns:
        "full_runs": number of trials with a finite last objective.
        "stopped": number of trials that were stopped.
        "far_below": number of those that were stopped far below the defaults.
        "correlations": for each earlier report, its "step" and the rank "correlation" of its
        objectives with the last ones, null if too few trials have both.

    None for a study without early stopping, and for one of the simple policy, which stops trials
    without measuring it.
    """
    budget = resolved_space(view).budget
    *steps, last = budget.report_steps
    race = view.study.space.get("policy") == "race" and view.study.scheduler == "asha"
    if not race or not steps:
        return None
    first = [t for t in view.trials if t.stage == SCREEN]
    early = EarlyStop(budget.report_steps, budget.eta)
    full = 0
    for trial, report in in_order(first):
        if report:
            early.note(trial.number, report.step, report.objective, defaults=trial.arm == 0)
            full += report.step == last and math.isfinite(report.objective)
    return {
        "full_runs": full,
        "stopped": sum(trial.state == "pruned" for trial in first),
        "far_below": sum(t.number in early.far_below for t in first if t.state == "pruned"),
        "correlations": [{"step": s, "correlation": early.correlation(s)} for s in steps],
    }


def early_stopping_text(view: StudyView) -> str:
    """The same in one or two sentences; "" for None."""
    found = early_stopping(view)
    if found is None:
        return ""
    full, stopped, far = found["full_runs"], found["stopped"], found["far_below"]
    ended = f"{counted(stopped, 'trial')} {'was' if stopped == 1 else 'were'} stopped"
    ended += f", {far} of them far below the defaults." if far else "."
    over = counted(full, "full run") + (f" and {counted(far, 'trial')} far below" if far else "")
    if all(row["correlation"] is None for row in found["correlations"]):
        return (
            f"Early stopping: the rank correlation with the last step needs {FEWEST_FULL} trials, "
            f"full runs or far below the defaults, and had {over}. {ended}"
        )
    each = " and ".join(
        f"{_rounded(row['correlation'])} at step {row['step']}" for row in found["correlations"]
    )
    return (
        f"Early stopping: the rank correlation with the last step was {each}, over {over}. {ended}"
    )


def _rounded(correlation: float | None) -> str:
    return "unknown" if correlation is None else f"{correlation:.2f}"
