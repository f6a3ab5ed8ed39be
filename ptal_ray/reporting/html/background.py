"""Sections on the configuration that was found, and on where its numbers come from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import Section, paragraph, table
from ptal_ray.reporting.html.page import shown as text
from ptal_ray.reporting.origin import changed, origin, seconds_of, seeds_of
from ptal_ray.study.captions import with_trial
from ptal_ray.study.view import StudyView


def configuration(view: StudyView) -> Section:
    """What differs between the recommended configuration and the defaults, or was searched."""
    if view.best_config() is None:
        parts = [note("No trial is complete.")]
        return Section(key="configuration", title="Configuration", parts=parts)
    rows = [
        [name, text(value), text(default), "" if value == default else "differs", domain]
        for name, value, default, domain in changed(view)
    ]
    head = ["parameter", with_trial("recommended", view, "best"), "default", "", "searched"]
    said = "Parameters that were searched or differ from their default; best.yaml holds all."
    parts = [table(head, rows), note(said)]
    return Section(key="configuration", title="Configuration", parts=parts)


def provenance(view: StudyView, commands: Sequence[str]) -> Section:
    """Machine, versions, data, seeds, and the commands that repeat the study."""
    study = view.study
    rows = [
        *(list(row) for row in origin(view).items()),
        ["data", f"{study.dataset}, {study.features}, content {study.data_hash}"],
        ["search", f"{study.searcher}, {study.scheduler}, seed {study.seed}"],
        ["seeds", seeds_of(view)],
        ["from the first to the last event", seconds_of(view)],
        ["incidents", str(len(view.incidents))],
    ]
    listed = "<pre>" + escape("\n".join(commands)) + "</pre>"
    said = paragraph("These commands repeat the search and the first test run of what it found:")
    return Section(
        key="provenance", title="Provenance", parts=[table(["", ""], rows), said, listed]
    )
