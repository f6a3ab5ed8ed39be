"""leaderboard.html: methods on data sets over all studies, and the papers' numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.reporting.comparison import Comparison, Entry, Place, ranks, unequal
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import BLUE, Figure, Section, page, paragraph, table
from ptal_ray.reporting.papers import Compared, compare, numbers_file, read_numbers
from ptal_ray.reporting.text import finished
from ptal_ray.study.view import StudyView

_TITLE = "Methods compared by ptal_ray"


def leaderboard_html(views: Sequence[StudyView], compared: Comparison) -> str:
    """The whole file.

    Args:
        views: the studies.
        compared: their methods.

    Raises:
        DataError: the registry of the papers' numbers is damaged.
    """
    papers = compare(read_numbers(numbers_file()), views)
    sections = [
        _tables(compared.methods, views),
        _differences(compared),
        _ranks(compared.methods),
        _papers(papers),
    ]
    return page(_TITLE, sections)


def is_leaderboard_page(path: Path) -> bool:
    """Whether a file is such a page, which a new one may replace."""
    with path.open("rb") as file:
        return f"<title>{_TITLE}</title>".encode() in file.read(400)


def _tables(found: Mapping[Place, Sequence[Entry]], views: Sequence[StudyView]) -> Section:
    parts: list[str | Figure] = []
    head = ["method", "studies", "seeds", "test videos", "test mAP, %", "sd", "95 % over seeds",
            "steps of the search", "test reads"]  # fmt: skip
    for place, group in found.items():
        rows = [
            [e.method, len(e.studies), len(e.values), ", ".join(map(str, sorted(e.videos))),
             f"{100 * e.interval.mean:.2f}",
             f"{100 * np.std(e.values, ddof=1):.2f}" if len(e.values) > 1 else "",
             e.interval.bounds, int(np.mean(e.budgets)), e.reads]
            for e in group
        ]  # fmt: skip
        parts += [paragraph(_said(place)), table(head, rows), _forest(group)]
        parts += [paragraph(said) for e in group for said in e.habits]
        if unequal(group):
            parts.append(note("Unequal budgets: steps of the searches differ by over a tenth."))
    parts = parts or [note("No study has a test mAP.")]
    if untested := [view.study.study for view in views if not view.has_test]:
        parts.append(note(f"Without a test split, not compared here: {', '.join(untested)}."))
    tested = {name for group in found.values() for entry in group for name in entry.studies}
    without = [v for v in views if v.has_test and v.study.study not in tested]
    if by_points := [v.study.study for v in without if finished(v, "test", "default")]:
        said = "Tested on points (pure-hit mAP), because the test videos have no segments, and not"
        parts.append(note(f"{said} compared here: {', '.join(by_points)}."))
    if left := [v.study.study for v in without if v.study.study not in by_points]:
        parts.append(note(f"Without a finished test run, not compared: {', '.join(left)}."))
    return Section(key="methods", title="Methods", parts=parts)


def _forest(group: Sequence[Entry]) -> Figure:
    """Means with their intervals, one under the other."""
    own = [e.interval for e in group][::-1]
    half = [0.0 if i.low != i.low else 100 * (i.high - i.mean) for i in own]
    trace: dict[str, Any] = {
        "x": [100 * i.mean for i in own], "y": [e.method for e in group][::-1],
        "error_x": {"array": half}, "mode": "markers", "marker": {"color": BLUE, "size": 9},
    }  # fmt: skip
    axes = {"xaxis": {"title": {"text": "test mAP, %"}, "automargin": True},
            "yaxis": {"automargin": True, "type": "category"},
            "margin": {"l": 80, "r": 16, "t": 8, "b": 48}}  # fmt: skip
    return Figure(data=[trace], layout=axes, height=90 + 30 * len(group))


def _said(place: Place) -> str:
    dataset, features, taught = place
    return f"{dataset}, {features} features, {taught}"


def _differences(compared: Comparison) -> Section:
    parts: list[str | Figure] = []
    found, pairs = compared.methods, compared.pairs
    for place in dict.fromkeys(pair.place for pair in pairs):
        lines = "".join(f"<li>{escape(p.text)}</li>" for p in pairs if p.place == place)
        parts += [paragraph(_said(place)), f"<ul>{lines}</ul>"]
    if pairs:
        parts.append(note(compared.basis))
    absent = sorted({e.method for g in found.values() for e in g if not e.matches})
    if absent:
        parts.append(note(f"Without their videos on this machine: {', '.join(absent)}."))
    parts = parts or [note("No two methods were tested on the same videos.")]
    return Section(key="differences", title="Differences", parts=parts)


def _ranks(found: Mapping[Place, Sequence[Entry]]) -> Section:
    by_method = ranks(found)
    places = [place for place, group in found.items() if len(group) > 1]
    if not places:
        said = [note("No data set has two methods.")]
        return Section(key="ranks", title="Ranks", parts=said)
    rows = [
        [method, *(own.get(place) for place in places), float(np.mean(list(own.values())))]
        for method, own in by_method.items()
    ]
    head = ["method", *(_said(place) for place in places), "mean rank"]
    parts = [table(head, rows, sortable=True)]
    if any(len(own) < len(places) for own in by_method.values()):
        parts.append(note("Some methods lack data sets; their mean ranks are not comparable."))
    return Section(key="ranks", title="Ranks", parts=parts)


def _papers(compared: Sequence[Compared]) -> Section:
    head = [
        "method",
        "data",
        "table",
        "average",
        "paper, %",
        "ours, %",
        "",
        "protocol",
        "known issues",
    ]
    names = "".join(f"<th>{escape(h)}</th>" for h in head)
    rows = "".join(_paper_row(own) for own in compared)
    body = (
        f'<div class="wide"><table class="sortable"><thead><tr>{names}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    said = note(
        "Reproduced: our result is at least the paper's, minus one point or half of our interval. "
        "Not comparable: simulated or other features, or another average."
    )
    return Section(key="papers", title="The papers' numbers", parts=[body, said])


def _paper_row(own: Compared) -> str:
    paper = own.paper
    ours = f"{100 * own.ours.mean:.1f}" if own.ours else ""
    badge = f'<span class="badge {own.badge.replace(" ", "-")}">{escape(own.badge)}</span>'
    issues = "; ".join(filter(None, [own.why, paper.issues]))
    cells = [paper.method, paper.dataset, paper.table, paper.average, f"{paper.value:.1f}", ours]
    plain = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    rest = "".join(f'<td class="text">{escape(cell)}</td>' for cell in (paper.protocol, issues))
    return f"<tr>{plain}<td>{badge}</td>{rest}</tr>"
