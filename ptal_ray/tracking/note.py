"""What MLflow shows above the numbers of a study: its conclusion and the test table."""

from __future__ import annotations

from ptal_ray.study.captions import arm_label, of_videos
from ptal_ray.study.conclusion import MEASURE, conclusion, interval, objective_unit
from ptal_ray.study.cross_validation import NOT_SEALED, CrossValidated, cross_validated
from ptal_ray.study.paper_compat import selection_gain
from ptal_ray.study.view import StudyView, summarise


def note(view: StudyView) -> str:
    """Markdown: the features, and the verdict with its table once there are test runs."""
    study = view.study
    said = f"Features: {study.features}. {study.note}".strip()
    if gained := selection_gain(view):
        said = f"**{gained.text}**\n\n{said}"
    rows = [row for arm in view.arms("test") if (row := _row(view, arm))]
    if folds := cross_validated(view):
        return "\n\n".join(
            [f"**{conclusion(view).text}**", _of_folds(view, folds), NOT_SEALED, said]
        )
    if not rows:
        return said
    what = f"test mAP{of_videos(view)}, %"
    head = f"| configuration | seeds | {what} | sd | 95 % interval over seeds |"
    table = "\n".join([head, "|---|---|---|---|---|", *rows])
    return "\n\n".join([f"**{conclusion(view).text}**", table, said])


def _of_folds(view: StudyView, found: CrossValidated) -> str:
    rows = [
        f"| {arm} | {len(own.values)} | {100 * own.mean:.2f} | "
        f"{'' if own.sd is None else f'{100 * own.sd:.2f}'} |"
        for arm, own in found.arms.items()
    ]
    unit = objective_unit(view)
    head = f"| configuration | folds and seeds | cross-validated {unit}, % | sd |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _row(view: StudyView, arm: str) -> str:
    found = summarise([run for run in view.runs("test", arm) if run.metrics]).get(MEASURE)
    if found is None:
        return ""
    sd = "" if found.sd is None else f"{100 * found.sd:.2f}"
    name, seeds = arm_label(view, arm), len(found.values)
    bounds = interval(found.values).bounds
    return f"| {name} | {seeds} | {100 * found.mean:.2f} | {sd} | {bounds} |"
