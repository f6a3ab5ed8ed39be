"""What a search says at its end, to a program and to a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptal_ray.process.words import counted
from ptal_ray.reporting.benchmark import sureness
from ptal_ray.reporting.ensemble import ensemble_lines
from ptal_ray.reporting.evidence import evidence, evidence_text
from ptal_ray.reporting.text import finished
from ptal_ray.study.captions import num_test_videos
from ptal_ray.study.conclusion import (
    NOT_COMPARED,
    Interval,
    better_name,
    compared_name,
    cross_validated_difference,
    objective_unit,
    test_reads,
    tie_text,
)
from ptal_ray.study.cross_validation import NOT_SEALED, cross_validated
from ptal_ray.study.events import loads
from ptal_ray.study.paper_compat import VALIDATED, on_test, selection_gain
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView, summarise
from ptal_ray.tracking.server import tracking_uri
from ptal_ray.tracking.tracker import view_links
from ptal_ray.training.selection import called, main_figure

_LINKS = {"leaderboard": "methods"}  # labels of seven letters at most
_ARMS = (("best", "recommended"), (VALIDATED, "by validation"), ("default", "defaults"))


def summary(study: Study, report: Path, unlogged: Sequence[str]) -> dict[str, Any]:
    """The outcome of a study, JSON-able: fractions, with mean, sd and values over seeds.

    Its keys have the same values as in result.json, but for "study" and "trials": here the name of
    the study and the number of trials by state, there all that is known of each.
    """
    view = StudyView.read(study.directory)
    return {
        "study": study.name,
        "directory": str(study.directory),
        "storage": study.remote,
        "state": view.end and view.end.state,
        "trials": view.counts,
        **recommendation(view),
        "objective": objective_unit(view),
        "test": test_figures(view),
        "test_videos": num_test_videos(view),
        "test_difference": _of_report(report, "test_difference"),
        "ensemble": _of_report(report, "ensemble"),
        "train": train_command(view, shlex.quote(str(report))),
        "deployable": any(run.metrics for run in view.deployable()),
        "note": view.study.note,
        "test_reads": test_reads(view),
        "habit": gained.text if (gained := selection_gain(view)) else "",
        "report": str(report),
        "mlflow": tracking_uri(),
        "views": view_links(study.directory),
        "unlogged": list(unlogged),
    }


def test_figures(view: StudyView) -> dict[str, Any] | None:
    """Every metric of the test runs by arm and name, JSON-able: mean, sd and values over the seeds
    that did not diverge. Where the defaults are recommended, theirs are those of "best" too, once
    all have ended. None without a test split."""
    if not view.has_test:
        return None
    tests = {
        arm: {name: asdict(s) for name, s in summarise(finished(view, "test", arm)).items()}
        for arm in view.arms("test")
    }
    ended = view.end is not None and view.end.state == "done"
    if "best" in tests or "default" not in tests or not ended:
        return tests
    return {"best": tests["default"]} | tests


def of_folds(view: StudyView) -> dict[str, Any] | None:
    """Figures on held-out folds, JSON-able: mean, sd and values of "recommended" and "defaults",
    and "difference" (paired); None for a study with a test split, or before there are any."""
    found = cross_validated(view)
    if found is None:
        return None
    paired = cross_validated_difference(view)
    arms = {arm: asdict(own) for arm, own in found.arms.items()}
    return arms | {"difference": asdict(paired) if paired else None}


def recommendation(view: StudyView) -> dict[str, Any]:
    """What the study recommends, JSON-able: "recommended", "verdict", "difference" (fractions of
    mAP, on folds of the training videos), "compared" (what it is of, in a tie), "cross_validated"
    of data without a test split (see `of_folds`), "best_trial" and its "evidence" (see `evidence`);
    a null for what is not known."""
    best = view.recommended
    tie = best is not None and best.verdict == "tie"
    return {
        "recommended": best.short() if best else None,
        "verdict": (best and best.verdict) or None,
        "difference": (best and best.difference) or None,
        "compared": compared_name(view) if tie else None,
        "cross_validated": of_folds(view),
        "best_trial": view.best.number if view.best else None,
        "evidence": evidence(view),
    }


def train_command(view: StudyView, report: str) -> str:
    """The command of the first test run of the best.yaml in the folder of a report."""
    study, whole = view.study, "--test" if view.has_test else "--whole"
    words = [f"python -m ptal_ray.train {report}/best.yaml {whole} --seed {study.seed + 1}"]
    words += [f"--points {study.points}"] if study.points else []
    words += ["--set selection.metric=map"] if on_test(view) else []
    return " ".join(words)


def _of_report(report: Path, key: str) -> dict[str, Any] | None:
    """A part of the result.json of a report; None where it has none."""
    path = report / "result.json"
    found = loads(path.read_text("utf-8")).get(key) if path.exists() else None
    return found if isinstance(found, dict) else None


def show_summary(outcome: dict[str, Any]) -> str:
    """The lines a person reads at the end."""
    lines = [f"warning {outcome['habit']}"] if outcome["habit"] else []
    lines += [f"verdict {text}"] if (text := _verdict(outcome)) else []
    if runs := outcome["evidence"]:
        lines.append(f"        {evidence_text(runs)}")
    lines += _cross_validated(outcome) if outcome["test"] is None else _tested(outcome)
    lines += ensemble_lines(outcome["ensemble"], outcome["train"])
    uri = outcome["mlflow"]
    server = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    lines += [f"note    {outcome['note']}"] if outcome["note"] else []
    lines += [
        f"study   {outcome['storage'] or outcome['directory']}",
        f"report  {outcome['report']}",
    ]
    if outcome["deployable"]:
        model = shlex.quote(outcome["storage"] or outcome["directory"])
        command = f"python -m ptal_ray.predict {model} --features DIR --out detections.json"
        server = f"{server}\npredict {command}"
    journal = Path(outcome["directory"]) / "optuna.journal"
    lines.append(f"optuna  optuna-dashboard {shlex.quote(str(journal))}")
    found = [f"{_LINKS.get(what, what):<7} {link}" for what, link in outcome["views"].items()]
    return "\n".join([*lines, f"runs    {server}", *found])


def _tested(outcome: dict[str, Any]) -> list[str]:
    """A line a tested configuration, and one on their difference."""
    lines, tests = [], outcome["test"]
    same = outcome["recommended"] is not None and tests.get("best") == tests.get("default")
    for arm, name in (("default", "defaults"),) if same else _ARMS:
        metrics = tests.get(arm, {})
        figure = main_figure(metrics, "test")
        if run := metrics.get(figure):
            on, trial = outcome["test_videos"], outcome["best_trial"] if arm == "best" else None
            videos = "" if on is None else f", {counted(on, 'video')}"
            first = "" if trial is None else f"trial {trial}, "
            spread = _spread(run, "seed", videos, first)
            lines.append(f"test {called(figure)}, {name:<12} {spread}")
    if (found := outcome["test_difference"]) and not same:
        what = called(main_figure(tests["default"], "test"))
        lines.append(f"test {what}, {'difference':<12} {Interval.of(found)}  ({sureness(found)})")
    return lines


def _cross_validated(outcome: dict[str, Any]) -> list[str]:
    """The same for data without a test split, and that nothing was sealed."""
    found = outcome["cross_validated"] or {}
    paired, what = found.get("difference"), f"cross-validated {outcome['objective']}"
    arms = ("recommended", "defaults") if paired else ("defaults",)
    lines = [f"{what}, {arm:<12} {_spread(found[arm], 'run')}" for arm in arms if arm in found]
    if paired:
        lines.append(f"{what}, {'difference':<12} {Interval.of(paired)}  (paired by fold and seed)")
    return [*lines, NOT_SEALED]


def _spread(run: Mapping[str, Any], one: str, more: str = "", first: str = "") -> str:
    """Mean, standard deviation, and in brackets `first`, number of seeds or runs, and `more`."""
    spread = f" ± {100 * run['sd']:.1f}" if run["sd"] is not None else ""
    return f"{100 * run['mean']:5.1f}{spread}  ({first}{counted(len(run['values']), one)}{more})"


def _verdict(outcome: dict[str, Any]) -> str:
    """One line on what is recommended and why; "" where no verdict was come to."""
    best, difference = outcome["recommended"], outcome["difference"]
    kind = outcome["verdict"]
    if not kind or not best or not difference:
        return ""
    said = f"{Interval.of(difference)} {outcome['objective']} on held-out folds"
    if kind == "better":
        verb = "are" if best["trial"] is None else "is"
        return f"{better_name(best['trial'])} {verb} better than the defaults by {said}"
    if kind == "tie" and not difference.get("cells", 1):
        return f"{NOT_COMPARED}, which are kept"
    if kind == "tie":
        return f"{tie_text(outcome['compared'])}: {said}; the defaults are kept"
    return "the defaults are the best found"
