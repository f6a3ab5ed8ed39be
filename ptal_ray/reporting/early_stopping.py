"""What early stopping of a race found: whether early objectives told of the last ones."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from ptal_ray.policy.cells import SCREEN
from ptal_ray.policy.early_stop import FEWEST_FULL, rank_correlation
from ptal_ray.process.words import counted
from ptal_ray.study.view import StudyView, resolved_space


def early_stopping(view: StudyView) -> dict[str, Any] | None:
    """JSON-able: "full_runs" (with a finite last objective) and "stopped", numbers of first trials
    of configurations, and for each earlier report "step" in "correlations" the rank "correlation"
    of its objectives with the last ones over the full runs, null if they are too few.

    None for a study without early stopping, and for one of the simple policy, which stops trials
    without measuring it.
    """
    *early, last = resolved_space(view).budget.report_steps
    race = view.study.space.get("policy") == "race" and view.study.scheduler == "asha"
    if not race or not early:
        return None
    first = [t for t in view.trials if t.stage == SCREEN]
    at = defaultdict[int, dict[int, float]](dict)
    for trial in first:
        for report in trial.reports:
            if math.isfinite(report.objective):
                at[report.step][trial.number] = report.objective
    return {
        "full_runs": len(at[last]),
        "stopped": sum(trial.state == "pruned" for trial in first),
        "correlations": [
            {"step": step, "correlation": rank_correlation(at[step], at[last])} for step in early
        ],
    }


def early_stopping_text(view: StudyView) -> str:
    """The same in one or two sentences; "" for None."""
    found = early_stopping(view)
    if found is None:
        return ""
    full, stopped = found["full_runs"], found["stopped"]
    ended = f"{counted(stopped, 'trial')} {'was' if stopped == 1 else 'were'} stopped."
    if full < FEWEST_FULL:
        return (
            "Early stopping: the rank correlation with the last step needs "
            f"{FEWEST_FULL} full runs and had {full}. {ended}"
        )
    each = " and ".join(
        f"{_rounded(row['correlation'])} at step {row['step']}" for row in found["correlations"]
    )
    return (
        f"Early stopping: the rank correlation with the last step was {each}, over {full} full "
        f"runs. {ended}"
    )


def _rounded(correlation: float | None) -> str:
    return "unknown" if correlation is None else f"{correlation:.2f}"
