"""What a search says at its end, to a program and to a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptal_ray.reporting.text import study_metric
from ptal_ray.study.conclusion import tested_difference
from ptal_ray.study.study import RECOMMENDED, Study
from ptal_ray.study.view import StudyView, loads, summarise
from ptal_ray.tracking.server import tracking_uri
from ptal_ray.tracking.tracker import view_links
from ptal_ray.training.selection import called, main_figure

_ARMS = (("best", "recommended"), ("default", "defaults"))


def summary(study: Study, report: Path, unlogged: Sequence[str]) -> dict[str, Any]:
    """The outcome of a study, JSON-able: fractions, with mean, sd and values over seeds."""
    view = StudyView.read(study.directory)
    tests = {
        arm: {
            name: {"mean": s.mean, "sd": s.sd, "values": list(s.values)}
            for name, s in summarise(view.runs("test", arm)).items()
            if name.startswith("test/")
        }
        for arm in view.arms("test")
    }
    return {
        "study": study.name,
        "directory": str(study.directory),
        "storage": study.remote,
        "state": (view.end or {}).get("state"),
        "trials": view.counts,
        **recommendation(view),
        "objective": "points score" if study_metric(view) == "points" else "mAP",
        "test": tests if "best" in tests or not tests else {"best": tests["default"]} | tests,
        "ensemble": _ensemble(report),
        "note": view.study.get("note", ""),
        "report": str(report),
        "mlflow": tracking_uri(),
        "views": view_links(study.directory),
        "unlogged": list(unlogged),
    }


def recommendation(view: StudyView) -> dict[str, Any]:
    """What the study recommends, JSON-able: "recommended", "verdict", "difference" (fractions of
    mAP, on folds of the training videos), "test_difference" (paired by seed) and "best_trial"; a
    null for what is not known."""
    best = view.recommended or {}
    tested = tested_difference(view)
    return {
        "recommended": {k: best[k] for k in RECOMMENDED} if best else None,
        "verdict": best.get("verdict") or None,
        "difference": best.get("difference") or None,
        "test_difference": asdict(tested) if tested else None,
        "best_trial": view.best.number if view.best else None,
        "runs": _runs(view),
    }


def _ensemble(report: Path) -> dict[str, Any] | None:
    """The row of the report on averaged scores; None where it has none."""
    path = report / "result.json"
    found = loads(path.read_text("utf-8")).get("ensemble") if path.exists() else None
    return found if isinstance(found, dict) else None


def _runs(view: StudyView) -> dict[str, Any] | None:
    """What the recommended trial scored, and what is believed of its configuration; None for the
    defaults, or where the policy has no beliefs."""
    best = view.recommended or {}
    row = next((row for row in best.get("arms", ()) if row["arm"] == best["arm"]), None)
    if view.best is None or row is None or row["mean"] is None:
        return None
    kept = {key: row[key] for key in ("mean", "sd", "cells")}
    return {"trial": view.best.number, "first": view.best.objective} | kept


def show_summary(outcome: dict[str, Any]) -> str:
    """The lines a person reads at the end."""
    lines = [f"verdict {text}"] if (text := _verdict(outcome)) else []
    if runs := outcome["runs"]:
        lines.append(
            f"        trial {runs['trial']}: {100 * runs['first']:.1f} in its own run, "
            f"{100 * runs['mean']:.1f} ± {100 * runs['sd']:.1f} over {runs['cells']} runs"
        )
    found = outcome["recommended"]
    same = found is not None and outcome["test"].get("best") == outcome["test"].get("default")
    for arm, name in (("default", "defaults"),) if same else _ARMS:
        metrics = outcome["test"].get(arm, {})
        figure = main_figure(metrics, "test")
        if run := metrics.get(figure):
            spread = f" ± {100 * run['sd']:.1f}" if run["sd"] is not None else ""
            runs = len(run["values"])
            seeds = f"{runs} seed{'s' if runs > 1 else ''}"
            value = f"{100 * run['mean']:5.1f}{spread}  ({seeds})"
            lines.append(f"test {called(figure)}, {name:<12} {value}")
    if (paired := outcome["test_difference"]) and not same:
        lines.append(f"test mAP, difference   {_interval(paired)}  (paired by seed)")
    uri = outcome["mlflow"]
    server = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    lines += [f"note    {outcome['note']}"] if outcome["note"] else []
    lines += [
        f"study   {outcome['storage'] or outcome['directory']}",
        f"report  {outcome['report']}",
    ]
    if outcome["test"].get("best"):
        model = shlex.quote(outcome["storage"] or outcome["directory"])
        command = f"python -m ptal_ray.predict {model} --features DIR --out detections.json"
        server = f"{server}\npredict {command}"
    journal = Path(outcome["directory"]) / "optuna.journal"
    lines.append(f"optuna  optuna-dashboard {shlex.quote(str(journal))}")
    found = [f"{what:<7} {link}" for what, link in outcome["views"].items()]
    return "\n".join([*lines, f"runs    {server}", *found])


def _verdict(outcome: dict[str, Any]) -> str:
    """One line on what is recommended and why; "" where no verdict was come to."""
    best, difference = outcome["recommended"], outcome["difference"]
    kind = outcome["verdict"]
    if not kind or not best or not difference:
        return ""
    said = f"{_interval(difference)} {outcome['objective']} on held-out folds"
    if kind == "better":
        what = "the defaults with tuned decoding are"
        if best["trial"] is not None:
            what = f"the configuration of trial {best['trial']} is"
        return f"{what} better than the defaults by {said}"
    if kind == "tie":
        return (
            f"the best found is not distinguishable from the defaults: {said}; the defaults are "
            "kept"
        )
    return "the defaults are the best found"


def _interval(found: Mapping[str, float]) -> str:
    low, high = (100 * found[k] for k in ("low", "high"))
    said = f"{100 * found['mean']:+.1f}"
    return said if low != low else f"{said} [{low:.1f}, {high:.1f}]"
