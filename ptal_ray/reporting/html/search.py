"""Sections on the search: its history, the parameters, the learning curves, the workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptal_ray.reporting.early_stopping import early_stopping_text
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Figure,
    Section,
    is_number,
    shown,
    table,
)
from ptal_ray.reporting.html.parallel import axis, parallel
from ptal_ray.reporting.text import objective_axis
from ptal_ray.study.conclusion import objective_unit, recommended
from ptal_ray.study.view import StudyView, TrialView

STATES = {"complete": BLUE, "pruned": GREY, "failed": ORANGE, "running": GREEN}
MOST_CURVES, MOST_SLICES = 60, 8


def history(view: StudyView) -> Section:
    """Every trial as observed, and each arm as the search believes it at its end."""
    data: list[dict[str, Any]] = []
    for state, colour in STATES.items():
        trials = [t for t in view.trials if t.state == state and t.finite]
        data.append({
            "x": [t.number for t in trials], "y": [100 * (t.objective or 0) for t in trials],
            "text": [described(t) for t in trials], "mode": "markers", "name": state,
            "marker": {"color": colour, "size": 7}, "hoverinfo": "text",
        })  # fmt: skip
    beliefs = _beliefs(view)
    data += beliefs or _observed(view)
    said = (
        "Points are single observations. Green is the posterior mean, at the end of the "
        "study, of the best configuration tried so far, with two standard deviations."
        if beliefs
        else "Points are single observations. The dashed line is the best observation so far, "
        "which overestimates the configuration; this search has no posterior."
    )
    axes = {"xaxis": {"title": {"text": "trial"}},
            "yaxis": {"title": {"text": objective_axis(view)}}}  # fmt: skip
    counts = [[state, number] for state, number in view.counts.items()]
    figure = Figure(data=data, layout=axes, height=400)
    parts: list[str | Figure] = [figure, note(said), table(["trials", ""], counts)]
    parts += [note(found)] if (found := early_stopping_text(view)) else []
    return Section(key="search", title="Search history", parts=parts)


def _beliefs(view: StudyView) -> list[dict[str, Any]]:
    """The incumbent by posterior mean after each trial."""
    said = recommended(view)
    arms = {int(arm["arm"]): arm for arm in (said.arms if said else ()) if _has_mean(arm)}
    numbers, means, sds = [], [], []
    seen: set[int] = set()
    for trial in view.trials:
        seen |= {trial.arm} & arms.keys()
        if seen:
            best = max((arms[k] for k in seen), key=lambda a: float(a["mean"]))
            numbers.append(trial.number)
            means.append(100 * float(best["mean"]))
            sds.append(100 * float(best.get("sd") or 0.0))
    if not numbers:
        return []
    low = [m - 2 * s for m, s in zip(means, sds, strict=True)]
    high = [m + 2 * s for m, s in zip(means, sds, strict=True)]
    band = {"x": [*numbers, *numbers[::-1]], "y": [*low, *high[::-1]], "fill": "toself",
            "fillcolor": "rgba(0,158,115,0.15)", "line": {"width": 0}, "hoverinfo": "skip",
            "name": "two standard deviations", "mode": "lines"}  # fmt: skip
    line = {"x": numbers, "y": means, "mode": "lines", "line": {"shape": "hv", "color": GREEN},
            "name": "best posterior mean"}  # fmt: skip
    return [band, line]


def _has_mean(arm: Mapping[str, Any]) -> bool:
    return arm.get("mean") is not None and math.isfinite(float(arm["mean"]))


def _observed(view: StudyView) -> list[dict[str, Any]]:
    done = view.complete
    if not done:
        return []
    best = np.maximum.accumulate([100 * (t.objective or 0) for t in done])
    return [{"x": [t.number for t in done], "y": best.tolist(), "mode": "lines",
             "line": {"shape": "hv", "dash": "dash", "color": GREEN},
             "name": "best observed"}]  # fmt: skip


def described(trial: TrialView) -> str:
    """A trial in a few lines, for the pointer."""
    value = "" if trial.objective is None else f"{100 * trial.objective:.2f} %"
    params = "<br>".join(f"{k} = {shown(v)}" for k, v in trial.params.items())
    return f"trial {trial.number}, {trial.state}: {value}<br>{params}".replace("</", "&lt;/")


def parameters(view: StudyView, order: Sequence[str] = ()) -> Section:
    """Parallel coordinates, and the objective against each parameter.

    Args:
        view: the study.
        order: names of parameters, the most important first.
    """
    trials = [t for t in view.trials if t.reports and math.isfinite(t.reports[0].objective)]
    known = searched(view)
    names = {name: known[name] for name in dict.fromkeys([*order, *known]) if name in known}
    if len(trials) < 2 or not names:
        return Section(key="parameters", title="Parameters", parts=[note("Too few trials.")])
    report, when = compared_report(view, trials)
    parts: list[str | Figure] = [
        _parallel(trials, names, report),
        note(
            f"Each line is a trial, blue the best quarter {when}, grey the worst. The values of a "
            f"parameter stand beside its axis; objectives are those {when}."
        ),
        *(_slice(view, trials, name, report, when) for name in list(names)[:MOST_SLICES]),
    ]
    if len(names) > MOST_SLICES:
        left = ", ".join(list(names)[MOST_SLICES:])
        parts.append(note(f"Not drawn separately: {left}."))
    return Section(key="parameters", title="Parameters", parts=parts)


def compared_report(view: StudyView, trials: Sequence[TrialView]) -> tuple[int, str]:
    """The report at which trials are compared, as an index, and in words: the last one where all
    reached the full budget, else the first one, which all reached."""
    last = int(view.study.space["budget"]["max_steps"])
    if all(t.reports[-1].step == last and t.finite for t in trials):
        return -1, "at the full budget"
    return 0, "at the first report"


def searched(view: StudyView) -> dict[str, Mapping[str, Any]]:
    """Domains of the searched parameters by "train.<name>" and "decode.<name>"."""
    return {
        f"{section}.{name}": domain
        for section in ("train", "decode")
        for name, domain in view.study.space.get(section, {}).items()
        if isinstance(domain, dict)
    }


def value_of(trial: TrialView, name: str, report: int = 0) -> Any:
    """A parameter of a trial by its full name; decode parameters as of a report."""
    section, _, key = name.partition(".")
    return trial.params.get(key) if section == "train" else trial.reports[report].decode.get(key)


def _parallel(
    trials: Sequence[TrialView], names: Mapping[str, Mapping[str, Any]], report: int
) -> Figure:
    """Lines over the parameters; the objective is the last axis."""
    objective = [t.reports[report].objective for t in trials]
    axes = [
        axis(name.partition(".")[2], [value_of(t, name, report) for t in trials], domain)
        for name, domain in names.items()
    ]
    last = axis("objective, %", [100 * value for value in objective], {"uniform": []})
    return parallel([*axes, last], objective)


def _slice(
    view: StudyView, trials: Sequence[TrialView], name: str, report: int, when: str
) -> Figure:
    domain = searched(view)[name]
    data = []
    for state, colour in STATES.items():
        mine = [t for t in trials if t.state == state]
        data.append({
            "x": [_axis_value(value_of(t, name, report)) for t in mine],
            "y": [100 * t.reports[report].objective for t in mine], "name": state,
            "mode": "markers", "marker": {"color": colour, "size": 6}, "showlegend": False,
        })  # fmt: skip
    axis: dict[str, Any] = {"title": {"text": name}}
    if next(iter(domain)).startswith("log"):
        axis |= {"type": "log", "exponentformat": "none"}  # 0.0001, not 100 with a prefix
    elif choices := domain.get("choice"):
        order = [_axis_value(choice) for choice in choices]
        axis |= {"type": "category", "categoryorder": "array", "categoryarray": order}
    axes = {"xaxis": axis, "yaxis": {"title": {"text": f"{objective_unit(view)} {when}, %"}}}
    return Figure(data=data, layout=axes, height=240)


def _axis_value(value: Any) -> Any:
    return value if is_number(value) else shown(value)


def curves(view: StudyView) -> Section:
    """Objective and total loss of the trials over steps, the best ones where there are many."""
    trials = sorted((t for t in view.trials if t.reports),
                    key=lambda t: -(t.objective if t.finite and t.objective else 0))  # fmt: skip
    kept = trials[:MOST_CURVES]
    if not kept:
        return Section(key="curves", title="Learning curves", parts=[note("No trial reported.")])
    parts: list[str | Figure] = []
    for title, points in (("objective, %", _objective), ("total loss", _loss)):
        data = []
        for trial in kept:
            steps, values = points(trial)
            data.append({"x": steps, "y": values, "mode": "lines+markers", "opacity": 0.7,
                         "marker": {"size": 4}, "line": {"width": 1, "color": STATES[trial.state]},
                         "name": f"trial {trial.number}", "showlegend": False})  # fmt: skip
        axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": title}}}
        parts.append(Figure(data=data, layout=axes, height=300))
    said = "Blue trials are complete, grey ones pruned, orange ones failed."
    if len(trials) > len(kept):
        said += f" The {len(kept)} best of {len(trials)} are drawn."
    return Section(key="curves", title="Learning curves", parts=[*parts, note(said)])


def _objective(trial: TrialView) -> tuple[list[float], list[float]]:
    return [r.step for r in trial.reports], [100 * r.objective for r in trial.reports]


def _loss(trial: TrialView) -> tuple[list[float], list[float]]:
    """Points between the reports where the log has them."""
    points = [point for r in trial.reports for point in r.losses.get("total", ())]
    if not points:
        points = [[r.step, r.metrics.get("train/loss_total", math.nan)] for r in trial.reports]
    return [point[0] for point in points], [point[1] for point in points]


def workers(view: StudyView) -> Section:
    """When each trial ran, in as many lanes as ran at a time."""
    ended = [t for t in view.trials if t.ended is not None and not math.isnan(t.started)]
    if not ended or view.started is None:
        return Section(key="workers", title="Workers", parts=[note("No trial has ended.")])
    began, free, lanes = view.started, list[float](), dict[int, int]()
    for trial in sorted(ended, key=lambda t: t.started):
        lane = next((k for k, end in enumerate(free) if end <= trial.started + 1e-3), len(free))
        free[lane : lane + 1] = [trial.ended or 0.0]
        lanes[trial.number] = lane
    data = []
    for state, colour in STATES.items():
        mine = [t for t in ended if t.state == state]
        data.append({
            "type": "bar", "orientation": "h", "name": state, "marker": {"color": colour},
            "base": [t.started - began for t in mine], "hoverinfo": "text",
            "x": [(t.ended or 0) - t.started for t in mine], "y": [lanes[t.number] for t in mine],
            "text": [f"trial {t.number}" for t in mine], "textposition": "none",
        })  # fmt: skip
    axes = {"barmode": "overlay", "xaxis": {"title": {"text": "seconds since the study began"}},
            "yaxis": {"title": {"text": "place"}, "dtick": 1}}  # fmt: skip
    busy = sum((t.ended or 0) - t.started for t in ended)
    share = busy / max(1e-9, len(free) * (max(free) - began))
    said = (
        f"At most {len(free)} trials ran at once; these places were busy {100 * share:.0f} % of it."
    )
    height = 180 + 22 * len(free)
    return Section(key="workers", title="Workers",
                   parts=[Figure(data=data, layout=axes, height=height), note(said)])  # fmt: skip


def trials(view: StudyView) -> Section:
    """Every trial; a click on a heading sorts."""
    names = [name for name in searched(view) if name.startswith("train.")]
    cells = any(t.fold is not None for t in view.trials)
    places = [n for n in ("arm", "fold", "seed") if cells]  # fmt: skip
    rows = [
        [t.number, *(getattr(t, n, None) for n in places), t.state,
         t.reports[-1].step if t.reports else None,
         100 * t.objective if t.objective is not None and t.finite else None,
         t.reports[-1].seconds if t.reports else None,
         *(value_of(t, name) for name in names), t.message]
        for t in view.trials
    ]  # fmt: skip
    head = ["trial", *places, "state", "step", f"{objective_unit(view)}, %", "seconds",
            *(name.partition(".")[2] for name in names), "message"]  # fmt: skip
    parts = [table(head, rows, sortable=True), note("Click a heading to sort.")]
    return Section(key="trials", title="Trials", parts=parts)
