"""What a run is called in MLflow, and which of its numbers MLflow gets.

One name a number: the objective of a trial is not repeated as mAP, and mAP at single thresholds is
in the report. A run has at most `MOST_METRICS` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ptal_ray.study.captions import trial_of, with_trial
from ptal_ray.study.event_types import FinalReport, Report
from ptal_ray.study.view import StudyView, TrialView

MOST_METRICS = 25
_AT_THRESHOLD = re.compile(r"\w+/mAP_\d\.\d+$")
_OTHER_AVERAGE = re.compile(r"(\w+)/mAP_avg_")


def study_name(name: str) -> str:
    """Time and space of a study, "013321 apn_watch": studies of a space differ in the time."""
    found = re.fullmatch(r"(.+)-\d{8}-(\d{6}\S*)", name)
    return f"{found[2]} {found[1]}" if found else name


def trial_name(trial: TrialView) -> str:
    """The number, as "trial 003", and the cell where the study has cells."""
    place = cell(trial)
    return f"trial {trial.number:03d}" + "".join(f" {k} {v}" for k, v in place.items())


def cell(trial: TrialView) -> dict[str, int]:
    """Arm, fold and seed of a trial; empty where its study has no cells."""
    if trial.fold is None or trial.seed is None:
        return {}
    return {"arm": trial.arm, "fold": trial.fold, "seed": trial.seed}


def arm_name(run: FinalReport, view: StudyView) -> str:
    """Name of an arm: "test best (trial 1)", "deploy default", or "trial 001 re-trained" for a
    candidate that was a trial."""
    if run.role != "reselect":
        return with_trial(f"{run.role} {run.arm}", view, run.arm)
    number = arm_trial(run, view)
    return f"{run.arm} re-trained" if number is None else f"trial {number:03d} re-trained"


def arm_trial(run: FinalReport, view: StudyView) -> int | None:
    """Number of the trial whose configuration a final run trains again; None for the defaults, or
    where it is not known."""
    if run.role != "reselect":
        return trial_of(view, run.arm)
    tried = (t for t in view.trials if t.params and t.params.items() <= run.params.items())
    return next((t.number for t in tried), None)


def chosen(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a final run that MLflow gets: averages of mAP, then the losses."""
    first = dict[str, str]()  # the first average of a protocol is the plain one
    for name in metrics:
        if found := _OTHER_AVERAGE.match(name):
            first.setdefault(found[1], name)
    again = {name for split, name in first.items() if f"{split}/mAP_avg" in metrics}
    kept = {k: v for k, v in metrics.items() if k not in again and not _AT_THRESHOLD.match(k)}
    order = sorted(kept, key=lambda name: name.startswith("train/"))
    return {name: kept[name] for name in order[:MOST_METRICS]}


def of_report(report: Report, last_step: int) -> dict[str, float]:
    """The metrics of a report of a trial: "objective" at the last step, else "objective_last"."""
    name = "objective" if report.step >= last_step else "objective_last"
    more = {name: report.objective, "seconds": report.seconds}
    if report.to_first_step_s is not None:
        more["to_first_step_s"] = report.to_first_step_s
    rest = chosen(report.metrics)
    for again in ("val/mAP_avg", "test/mAP_avg"):
        if same(rest.get(again), report.objective):
            del rest[again]
    names = list(rest)[: MOST_METRICS - 4]  # objective and objective_last are two names
    return more | {name: rest[name] for name in names}


def same(one: float | None, other: float) -> bool:
    """Equality, also of two NaN."""
    return one is not None and (one == other or (one != one and other != other))
