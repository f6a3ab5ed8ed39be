"""The section of a report on data without a test split: figures on folds of the training split."""

from __future__ import annotations

from ptal_ray.reporting.text import data_label, study_metric, table
from ptal_ray.study.conclusion import conclusion, cross_validated_difference
from ptal_ray.study.cross_validation import NOT_SEALED, CrossValidated, cross_validated
from ptal_ray.study.view import StudyView

TITLE = "Cross-validation"
HEAD = ("configuration", "runs", "mean, %", "sd")


def rows(found: CrossValidated) -> list[list[str]]:
    """A row a configuration, in the columns of `HEAD`."""
    return [
        [arm, str(len(own.values)), f"{100 * own.mean:.2f}",
         "" if own.sd is None else f"{100 * own.sd:.2f}"]
        for arm, own in found.arms.items()
    ]  # fmt: skip


def explanation(view: StudyView, found: CrossValidated) -> str:
    """What the rows are, the difference of the configurations, and what the figures rest on."""
    what = "points score" if study_metric(view) == "points" else "mAP"
    lines = [f"{what} on held-out folds of the training split; each run has one fold and one seed."]
    if paired := cross_validated_difference(view):
        lines.append(
            f"Recommended minus defaults: {paired} points (95 %, paired by fold and seed)."
        )
    elif found.recommended == found.defaults:
        lines.append("The defaults are recommended.")
    else:
        lines.append("Recommended and defaults have no run in common; see the runs that diverged.")
    if not found.fresh and found.differences:
        lines.append(
            "The search selected on some of these videos, which favours the recommendation."
        )
    return " ".join(lines)


def cross_validated_section(view: StudyView) -> str:
    """The section of REPORT.md; "" for a study with a test split."""
    if view.has_test:
        return ""
    title, found = f"## {TITLE}{data_label(view)}", cross_validated(view)
    if found is None:
        return f"{title}\n\n{NOT_SEALED}. There are no cross-validated results yet."
    parts = [conclusion(view).text, table(HEAD, rows(found)), explanation(view, found)]
    return "\n\n".join([title, *parts, f"**{NOT_SEALED}.**"])
