"""The beginning of REPORT.md."""

from __future__ import annotations

from ptal_ray.process.words import counted
from ptal_ray.reporting.evidence import evidence, evidence_text
from ptal_ray.study.conclusion import conclusion, objective_unit, test_reads
from ptal_ray.study.cross_validation import NOT_SEALED
from ptal_ray.study.paper_compat import on_test, selection_gain
from ptal_ray.study.view import StudyView


def setting(view: StudyView) -> str:
    """The first paragraphs: the recommendation with its evidence, the study, and how often the test
    split was read."""
    study = view.study
    lines = [
        f"Method **{study.method}** on **{study.dataset}**, features: {study.features}.",
        study.note,
        f"Searcher {study.searcher}, scheduler {study.scheduler}, seed {study.seed}. "
        f"{_selected(view)}",
    ]
    if earlier := study.warm_start:
        lines.append(f"Configurations of earlier studies were used: {', '.join(earlier)}.")
    if view.end is None or view.end.state != "done":
        state = view.end.state if view.end else "running, or killed"
        lines.append(f"**The study is not finished: {state}.**")
    elif view.end.message:
        lines.insert(0, f"**The search has no result: {view.end.message}.**")
    elif (found := conclusion(view)).verdict:
        measured = " The difference was measured on held-out folds." if found.found else ""
        own = evidence(view)
        said = f" T{evidence_text(own)[1:]}." if own else ""
        lines.insert(0, f"**{found.text}**{measured}{said}")
    return "\n\n".join(line for line in lines if line)


def _selected(view: StudyView) -> str:
    """On what configurations were selected, and how often the test split was read."""
    reads = test_reads(view)
    if on_test(view):
        own = selection_gain(view)
        said = f"**Configurations were selected on the test split, which was read {reads} times.**"
        return f"{said} {own.text}" if own else said
    by_points = objective_unit(view) == "points score"
    how = " by its points, without annotated segments" if by_points else ""
    read = (
        f"the sealed test split was read {counted(reads, 'time')}, after the search, once by each "
        "run in the first table"
        if reads
        else "the sealed test split was not read"
    )
    where = "folds" if view.study.space.get("policy") == "race" else "a fold"
    return (
        f"Configurations were selected on {where} of the training split{how}; "
        f"{read if view.has_test else NOT_SEALED}."
    )
