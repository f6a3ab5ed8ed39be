"""The report of a study: tables, pictures, and files for programs, in a folder of its own."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ptal_ray.data.staging import check_place, staged
from ptal_ray.data.types import Segments
from ptal_ray.errors import DataError, PtalError, full_storage_named
from ptal_ray.policy.importance import MIN_TRIALS, param_importance
from ptal_ray.reporting import plots
from ptal_ray.reporting.benchmark import Benchmark, read_benchmark
from ptal_ray.reporting.cross_validated import cross_validated_section
from ptal_ray.reporting.early_stopping import early_stopping
from ptal_ray.reporting.ensemble import best_head, ensemble_row, ensemble_section, with_members
from ptal_ray.reporting.html.report import report_html
from ptal_ray.reporting.outcome import recommendation, test_figures, train_command
from ptal_ray.reporting.point_selection import point_selection
from ptal_ray.reporting.tested import Tested
from ptal_ray.reporting.text import (
    by_threshold,
    data_label,
    finished,
    markdown,
    run_figure,
)
from ptal_ray.storage.ownership import Kind, read_object
from ptal_ray.storage.place import inside, plain_name
from ptal_ray.study.captions import arm_label, num_test_videos
from ptal_ray.study.choices import PAPER_COMPAT
from ptal_ray.study.events import dumps
from ptal_ray.study.paper_compat import on_test
from ptal_ray.study.view import StudyView, TrialView, resolved_space, summarise

FLUSH_S = 600.0  # for --log: without progress, since a server may have to wake up
_PICTURES = ("optimisation_history", "per_threshold", "importance", "timeline")
_FILES = ("REPORT.md", "report.html", "result.json", "space.yaml", "best.yaml", "trials.parquet")
_REPORT = Kind(
    name="report of a study",
    has={*_FILES, *(f"{name}.{end}" for name in _PICTURES for end in ("png", "svg"))}.__contains__,
    known=lambda path: {"study", "trials"} <= read_object(path / "result.json").keys(),
)


def write_report(study_dir: Path, reports_root: Path) -> Path:
    """Writes the report of a study, in the place of an earlier one of the same name.

    Args:
        study_dir: the study directory.
        reports_root: folder of all reports.

    Returns:
        The folder of the report; the same bytes for the same study directory.

    Raises:
        DataError: the study directory has no readable events, or something else than a report
            lies in its place.
    """
    view = StudyView.read(study_dir)
    if view.start is None:
        raise DataError(f"{study_dir}: its log has no study; was the search started?")
    folder = inside(reports_root, report_name(view))
    with (
        staged(folder, _REPORT, replace=True, wait=True) as work,
        full_storage_named(reports_root),
    ):
        _write(view, study_dir, work, folder.name)
    return folder


def check_report(study_dir: Path, reports_root: Path) -> None:
    """Finds out early whether what lies in the place of the report of a study may be replaced.

    Raises:
        DataError: it is no report.
    """
    view = StudyView.read(study_dir)
    if view.start:
        check_place(inside(reports_root, report_name(view)), _REPORT, replace=True)


def report_name(view: StudyView) -> str:
    """<study>_<hardware>_<date of its first event, UTC>."""
    machine = view.study.hardware
    gpus = machine["gpus"]
    kind = f"{len(gpus)}x{gpus[0]}" if gpus else f"{machine['cpus']}cpu"
    date = time.strftime("%Y-%m-%d", time.gmtime(view.started))
    name = view.study.study
    if not re.fullmatch(r"[^/]{1,150}", name, re.DOTALL) or name.startswith("."):
        raise DataError(f"study {name[:80]!r}: no name of a study, which is the name of a folder")
    return f"{plain_name(name, 150)}_{re.sub(r'[^A-Za-z0-9]+', '-', kind)}_{date}"


def _write(view: StudyView, study_dir: Path, folder: Path, name: str) -> None:
    shares, benchmark = param_importance(view), read_benchmark(view, study_dir)
    shown, missing = _pictures(view, benchmark, folder, shares)
    commands = _commands(view, study_dir, name)
    row = ensemble_row(view, study_dir)
    more = (*point_selection(view, study_dir), *ensemble_section(row, commands[-1]))
    untested = cross_validated_section(view)
    text = markdown(view, shares, shown, missing, commands, benchmark.bounds, more, untested)
    (folder / "REPORT.md").write_text(text, encoding="utf-8")
    whole = report_html(view, benchmark, commands)
    (folder / "report.html").write_text(whole, encoding="utf-8")
    more_found = {"test_difference": benchmark.difference, "ensemble": row}
    (folder / "result.json").write_text(
        dumps(result(view, shares) | more_found, indent=1) + "\n", encoding="utf-8"
    )
    (folder / "space.yaml").write_text(resolved_space(view).to_yaml(), encoding="utf-8")
    if best := view.best_config():
        space = with_members(resolved_space(view).freeze(*best), row)
        (folder / "best.yaml").write_text(best_head(row) + space.to_yaml(), encoding="utf-8")
    pq.write_table(trial_table(view), folder / "trials.parquet")


def _commands(view: StudyView, study_dir: Path, name: str) -> list[str]:
    """What repeats the search, and the first test run of what it found."""
    study, settings = view.study, read_object(study_dir / "study.json")
    words = [
        f"python -m ptal_ray.search reports/{name}/space.yaml --seed {study.seed}",
        f"--searcher {study.searcher} --scheduler {study.scheduler}",
    ]
    if earlier := study.warm_start:
        places = {one["study"]: one.get("place") for one in settings.get("warm_start", ())}
        named = (shlex.quote(places.get(name) or name) for name in earlier)
        words.append(f"--warm-start {' '.join(named)}")
    words += [f"--{k.replace('_', '-')} {settings[k]}" for k in ("num_trials", "max_concurrent")
              if settings.get(k) is not None]  # fmt: skip
    words += [f"--points {study.points}"] if study.points else []
    if settings.get("gpu_hours") is not None:
        words.append(f"--gpu-hours {_plain(settings['gpu_hours'])}")
    if settings.get("time_budget_s") is not None:
        words.append(f"--time-budget {_plain(settings['time_budget_s'])}s")
    if on_test(view):
        words.append(f"--protocol {PAPER_COMPAT}")
    train = train_command(view, f"reports/{name}")
    return [" ".join(words), *([train] if view.best_config() else [])]


def _plain(number: float) -> str:
    """A number as a flag takes it, with all its digits and without an exponent."""
    digits = format(Decimal(repr(number)), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def result(view: StudyView, shares: Mapping[str, float]) -> dict[str, Any]:
    """Everything in the report, for programs; mAP as fractions."""
    best = view.best_config()
    return {
        "study": view.study.line(),
        "end": view.end and view.end.line(),
        "counts": view.counts,
        **recommendation(view),
        "best": {"train": best[0], "decode": best[1]} if best else None,
        "test": test_figures(view),
        "test_videos": num_test_videos(view),
        **{
            role: {
                arm: {k: asdict(s) for k, s in summarise(finished(view, role, arm)).items()}
                for arm in view.arms(role)
            }
            for role in ("reselect", "fold", "deploy")
            if role == "reselect" or view.arms(role)
        },
        "runs": [asdict(run) for run in view.finals],
        "importance": dict(shares),
        "early_stopping": early_stopping(view),
        "trials": [asdict(trial) for trial in view.trials],
    }


def trial_table(view: StudyView) -> pa.Table:
    """One row a report of a trial, and one for a trial without reports."""
    rows = [row for trial in view.trials for row in _rows(trial)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in columns})


def _rows(trial: TrialView) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"trial": trial.number, "state": trial.state, "message": trial.message}
    common |= {f"train.{k}": v for k, v in trial.params.items()}
    reports: list[dict[str, Any]] = [
        {"step": r.step, "objective": r.objective, "seconds": r.seconds,
         "to_first_step_s": r.to_first_step_s}
        | r.metrics | {f"decode.{k}": v for k, v in r.decode.items()}
        for r in trial.reports
    ]  # fmt: skip
    return [common | report for report in reports or [{}]]


def _pictures(
    view: StudyView, benchmark: Benchmark, folder: Path, shares: Mapping[str, float]
) -> tuple[dict[str, str], dict[str, str]]:
    """Draws what can be drawn; captions by name, and why the others were left out."""
    label = data_label(view)
    shown, missing, made = {}, {}, {}
    made["optimisation_history"] = plots.optimisation_history(view, label)
    shown["optimisation_history"] = f"The last report of every trial{label}."
    arms = {arm_label(view, arm): by_threshold(view, arm) for arm in view.arms("test")}
    if any(arms.values()):
        made["per_threshold"] = plots.per_threshold({k: v for k, v in arms.items() if v}, label)
        shown["per_threshold"] = f"Bars are one standard deviation over seeds{label}."
    elif not view.has_test:
        missing["per_threshold"] = "there is no test split"
    elif run_figure(view, "test").endswith("hit_mAP"):
        missing["per_threshold"] = "the test split has no annotated segment"
    else:
        missing["per_threshold"] = "no final run has finished"
    if shares:
        made["importance"] = plots.importance(shares, label)
        shown["importance"] = (
            "Share of the variance of the objective at the first report step, which every trial "
            "reaches, that a train parameter explains by fANOVA; report.html has decode parameters "
            f"too, and the full budget{label}."
        )
    else:
        reported = sum(bool(t.reports) for t in view.trials)
        missing["importance"] = (
            f"{reported} trials reported; {MIN_TRIALS} with different objectives are required"
        )
    if benchmark.tested:
        made["timeline"], shown["timeline"] = _timeline(benchmark.tested, label)
    else:
        missing["timeline"] = benchmark.missing
    for name, figure in made.items():
        plots.save(figure, folder, name)
    return shown, missing


def _timeline(tested: Tested, label: str) -> tuple[Any, str]:
    """A typical test video: the one whose number of instances is the median."""
    ranked = sorted(tested.truth, key=lambda v: (len(tested.truth[v]), v))
    video = ranked[len(ranked) // 2]
    most = len(tested.truth[video])
    rows = {"ground truth": tested.truth[video]}
    for arm, name in tested.names.items():
        if key := tested.first(arm):
            rows[name] = tested.found[key].get(video, Segments.empty()).take(slice(most))
    caption = (
        f"Test video {video} (the median by number of instances), first seed; of each "
        f"configuration the {most} detections with the highest scores, as many as "
        f"there are instances{label}."
    )
    return plots.timeline(rows, tested.classes, video, tested.durations[video], label), caption


def send(study_dir: Path, folder: Path) -> tuple[str, ...]:
    """Sends MLflow the events and the report that it lacks; returns a line for what it still does.

    Raises:
        TrackingError: the server does not answer.
    """
    from ptal_ray.tracking.tracker import MlflowTracker  # MLflow is slow to import

    tracker = MlflowTracker(study_dir)
    tracker.start()
    tracker.attach(folder)
    return tracker.close(FLUSH_S)


def write_reports(
    studies: Sequence[Path], root: Path
) -> tuple[dict[Path, tuple[Path, StudyView]], list[PtalError]]:
    """Reports every study that has a report in it, and says which one it is at and what is wrong
    with each of the others."""
    made, failed = {}, list[PtalError]()
    of_reports = dict[str, Path]()  # the study of each report so far
    distinct = list({study.resolve(): study for study in studies}.values())
    for number, study in enumerate(distinct, 1):
        if len(distinct) > 1:
            print(f"study {number} of {len(distinct)}: {study}", file=sys.stderr)
        try:
            view = StudyView.read(study)
            _check_distinct(study, view, of_reports)
            made[study] = write_report(study, root), view
        except (PtalError, KeyError) as error:
            damaged = DataError(f"{study}: its log lacks {error}; restore it")
            failed.append(error if isinstance(error, PtalError) else damaged)
            print(f"error: {failed[-1]}", file=sys.stderr)
    return made, failed


def _check_distinct(study: Path, view: StudyView, of_reports: dict[str, Path]) -> None:
    """Check that no study before this one has a report of the same name, and add its own.

    Raises:
        DataError: one has: it is a copy.
    """
    if view.start is None:
        return
    other = of_reports.setdefault(report_name(view), study)
    if other != study:
        raise DataError(
            f"{study}: is study {view.study.study}, as is {other}, whose report it would replace; "
            "report one of them, or each with its own --out"
        )
