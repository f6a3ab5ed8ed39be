"""What a search says at its end, to a program and to a person."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView, summarise
from ptal_ray.tracking.server import tracking_uri
from ptal_ray.training.selection import called, main_figure


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
    end = view.end or {}
    return {
        "study": study.name,
        "directory": str(study.directory),
        "storage": study.remote,
        "state": end.get("state"),
        "trials": view.counts,
        "best_trial": end.get("best_trial"),
        "best_params": end.get("best_params", {}),
        "best_decode": end.get("best_decode", {}),
        "test": tests,
        "note": view.study.get("note", ""),
        "report": str(report),
        "mlflow": tracking_uri(),
        "unlogged": list(unlogged),
    }


def show_summary(outcome: dict[str, Any]) -> str:
    """The lines a person reads at the end."""
    lines = []
    for arm, name in (("best", "best found"), ("default", "defaults")):
        metrics = outcome["test"].get(arm, {})
        figure = main_figure(metrics, "test")
        if found := metrics.get(figure):
            spread = f" ± {found['sd']:.4f}" if found["sd"] is not None else ""
            runs = len(found["values"])
            seeds = f"{runs} seed{'s' if runs > 1 else ''}"
            lines.append(
                f"test {called(figure)}, {name:<10}  {found['mean']:.4f}{spread}  ({seeds})"
            )
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
    return "\n".join([*lines, f"runs    {server}"])
