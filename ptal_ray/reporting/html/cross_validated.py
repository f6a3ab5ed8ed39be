"""The second section of the page for data without a test split."""

from __future__ import annotations

from ptal_ray.reporting.cross_validated import HEAD, TITLE, explanation, rows
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import Section, paragraph, table
from ptal_ray.reporting.text import data_label
from ptal_ray.study.cross_validation import NOT_SEALED, cross_validated
from ptal_ray.study.view import StudyView


def cross_validation_table(view: StudyView) -> Section:
    """Figures of what is recommended and of the defaults on folds of the training split."""
    found, title = cross_validated(view), f"{TITLE}{data_label(view)}"
    if found is None:
        parts = [note(f"{NOT_SEALED}. There are no cross-validated results yet.")]
        return Section(key="cross-validation", title=title, parts=parts)
    parts = [table(list(HEAD), rows(found)), paragraph(explanation(view, found)), note(NOT_SEALED)]
    return Section(key="cross-validation", title=title, parts=parts)
