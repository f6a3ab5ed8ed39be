"""report.html: a study on one page, the verdict first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptal_ray.reporting.benchmark import Benchmark
from ptal_ray.reporting.html import background, detections, outcome, search
from ptal_ray.reporting.html.cross_validated import cross_validation_table
from ptal_ray.reporting.html.importance import importance, shares
from ptal_ray.reporting.html.page import Section, page
from ptal_ray.reporting.tested import Tested
from ptal_ray.study.conclusion import conclusion
from ptal_ray.study.paper_compat import remark
from ptal_ray.study.view import StudyView


def report_html(view: StudyView, benchmark: Benchmark, commands: Sequence[str]) -> str:
    """The whole file.

    Args:
        view: the study.
        benchmark: its test runs.
        commands: that repeat the study.
    """
    computed = shares(view)
    sections = [
        outcome.verdict(view),
        outcome.test_table(view, benchmark) if view.has_test else cross_validation_table(view),
        search.history(view),
        importance(computed),
        search.parameters(view, list(next(iter(computed.values())))),
        search.curves(view),
        search.workers(view),
        *_of_detections(view, benchmark.tested, benchmark.missing),
        background.configuration(view),
        search.trials(view),
        background.provenance(view, commands),
    ]
    if said := remark(view):
        sections = [replace(s, title=_saying(s.title, said)) for s in sections]
    return page(view.study.study, sections)


def _saying(title: str, said: str) -> str:
    """A heading that says it too; the one of the test table has it in its label."""
    return f"{title} ({said})" if title and said not in title else title


def _of_detections(view: StudyView, tested: Tested | None, missing: str) -> list[Section]:
    if tested is None:
        parts = [outcome.note(f"Nothing on classes, errors and videos: {missing}.")]
        return [Section(key="detections", title="Detections", parts=parts)]
    found = detections.diagnoses(tested)
    return [
        detections.classes(tested),
        detections.errors(tested, found),
        detections.sensitivity(tested, found),
        detections.videos(tested, conclusion(view).arm),
    ]
