"""Which hyperparameters matter: at the first report, which all trials reach, and at the last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptal_ray.policy.importance import MIN_TRIALS
from ptal_ray.policy.importance_intervals import Shares, importance_intervals
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import BLUE, ORANGE, Figure, Section
from ptal_ray.reporting.html.search import searched, value_of
from ptal_ray.space.domain import Domain
from ptal_ray.study.view import StudyView


def shares(view: StudyView) -> dict[str, Shares]:
    """Importance with its spread, at the first report and at the last."""
    last = int(view.study.space["budget"]["max_steps"])
    return {
        "at the first report": _shares(view, 0, 0),
        "at the full budget": _shares(view, -1, last),
    }


def importance(computed: Mapping[str, Shares]) -> Section:
    """Bars with the spread over trees; decode parameters as the trials chose them.

    Args:
        computed: of `shares`.
    """
    colours = (BLUE, ORANGE)
    found = {
        name: (colour, own) for (name, own), colour in zip(computed.items(), colours, strict=True)
    }
    data: list[dict[str, Any]] = []
    for name, (colour, own) in found.items():
        if own:
            names = list(own)[::-1]
            means = [100 * own[n][0] for n in names]
            bounds = {
                "array": [100 * (own[n][2] - own[n][0]) for n in names],
                "arrayminus": [100 * (own[n][0] - own[n][1]) for n in names],
                "symmetric": False, "thickness": 1,
            }  # fmt: skip
            data.append({
                "type": "bar", "orientation": "h", "x": means, "y": names, "name": name,
                "marker": {"color": colour}, "error_x": bounds,
            })  # fmt: skip
    absent = [name for name, (_, own) in found.items() if not own]
    parts: list[str | Figure] = []
    if data:
        axes = {"barmode": "group", "yaxis": {"automargin": True},
                "xaxis": {"title": {"text": "share of the variance, %"}}}  # fmt: skip
        parts = [
            Figure(data=data, layout=axes, height=160 + 34 * len(data[0]["y"])),
            note("fANOVA; lines span the 10th to the 90th percentile over trees, each fitted to a "
                 "bootstrap sample of the trials."),
        ]  # fmt: skip
    if absent:
        parts.append(note(f"Not {' nor '.join(absent)}: {MIN_TRIALS} trials with different "
                          "objectives are required."))  # fmt: skip
    return Section(key="importance", title="Importance", parts=parts)


def _shares(view: StudyView, report: int, least_step: int) -> Shares:
    domains = {n: Domain.from_dict(dict(d)) for n, d in searched(view).items()}
    points, values = [], []
    for trial in view.trials:
        if not trial.reports or trial.reports[report].step < least_step:
            continue
        if not math.isfinite(trial.reports[report].objective):
            continue
        point = {name: value_of(trial, name, report) for name in domains}
        if all(v is not None and domains[n].contains(v) for n, v in point.items()):
            points.append(point)
            values.append(trial.reports[report].objective)
    return importance_intervals(domains, points, values)
