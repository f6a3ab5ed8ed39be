"""The cost of the driver of a search, measured with a study whose trials do not train."""

from __future__ import annotations

import io
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from ptal_ray.benchmarks.random_store import random_store
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import names
from ptal_ray.reporting.progress import Progress
from ptal_ray.space.space import parse_space
from ptal_ray.study.event_types import Event, Report, TrialEnd
from ptal_ray.study.events import EventLog
from ptal_ray.study.study import Study, create_study
from ptal_ray.study.view import StudyView

SPACE = """
method: {method}
dataset: profile
policy: {policy}
budget: {{trials: {trials}, min_steps: 10, max_steps: 270, eta: 3}}
train:
  lr: {{loguniform: [1.0e-5, 1.0e-1]}}
  weight_decay: {{loguniform: [1.0e-6, 1.0e-2]}}
  batch_size: {{choice: [8, 16, 32]}}
final: {{top: 2, seeds: 2}}
"""
GROUP = 100  # number of first and of last trials, which are compared
UPLOAD_S = 600.0  # for MLflow to receive the rest at the end


@dataclass(frozen=True, kw_only=True)
class Sample:
    """CPU time of the driver at an event: of the process, and of the thread that runs Tune."""

    ended: int
    reports: int
    wall_s: float
    cpu_s: float
    loop_s: float
    suggest_s: float
    rss_mib: float


def profile_driver(trials: int, concurrent: int, policy: str) -> dict[str, Any]:
    """Run a study of `trials`, `concurrent` at a time, and measure this process, its driver.

    A race is measured without early stopping: its budget counts full runs, and trials that stop
    early count as small fractions, so a budget of 1,000 would be many thousand trials.
    """
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # artifacts go below it
        study = driven_study(Path(folder), trials, concurrent, policy)
        return _run(study, f"sqlite:///{folder}/mlflow.db", concurrent)


def driven_study(folder: Path, trials: int, concurrent: int, policy: str) -> Study:
    """A study whose trials do not train; see `profile_driver`."""
    store = random_store(folder / "store", videos=24, snippets=8, dim=4, classes=2, points=2)
    method = next(n for n in names() if "." not in n)
    space = parse_space(
        SPACE.format(method=method, trials=trials, policy=policy), name="driver",
        source="the driver's profile",
    )  # fmt: skip
    settings: dict[str, Any] = {"num_trials": trials, "max_concurrent": concurrent}
    settings["scheduler"] = "none" if policy == "race" else "asha"
    return create_study(space, FeatureStore.open(store), folder / "studies", **settings)


def _run(study: Study, uri: str, concurrent: int) -> dict[str, Any]:
    from ptal_ray.backends.ray.runner import run_study
    from ptal_ray.backends.session import Signals
    from ptal_ray.benchmarks.dummy import dummy_process, many_cpus  # Ray is slow to import
    from ptal_ray.tracking.tracker import MlflowTracker

    clock, samples = _clock(), list[Sample]()
    me, began = psutil.Process(), time.time()
    tracker = MlflowTracker(study.directory, uri, "ptal/profile")
    tracker.start()
    progress = Progress(study, Console(file=io.StringIO()), live=False, quiet=False)

    def listen(event: Event) -> None:
        """Take an event and, after reports and ends of trials, a sample."""
        progress.event(event)
        if isinstance(event, Report | TrialEnd):
            last = samples[-1] if samples else None
            samples.append(
                Sample(
                    ended=(last.ended if last else 0) + isinstance(event, TrialEnd),
                    reports=(last.reports if last else 0) + isinstance(event, Report),
                    wall_s=time.time() - began,
                    cpu_s=time.process_time(),
                    loop_s=time.thread_time(),
                    suggest_s=clock.seconds["suggestions"],
                    rss_mib=me.memory_info().rss / 2**20,
                )
            )

    clock.watch(progress, "event", "live lines")
    with Signals() as signals, many_cpus(concurrent) as address:
        view = run_study(
            study, address=address, listen=listen, trainable=dummy_process(),
            interrupted=lambda: signals.asked, ready=signals.install,
        )  # fmt: skip
    missing = tracker.close(UPLOAD_S)
    return {
        "trials": len(view.trials),
        "concurrent": concurrent,
        **_figures(samples),
        "CPU s in all": samples[-1].cpu_s,
        "CPU s by part": clock.seconds,
        "calls by part": clock.calls,
        **_lost(view, study.events, uri.removeprefix("sqlite:///")),
        "MLflow lacks": list(missing),
    }


def _clock() -> Any:
    """A clock for the parts of the driver."""
    from ptal_ray.benchmarks.dummy import Clock
    from ptal_ray.policy.optuna_searcher import OptunaSearcher
    from ptal_ray.policy.race import Race
    from ptal_ray.tracking.tracker import MlflowTracker

    clock = Clock()
    clock.watch(OptunaSearcher, "suggest", "suggestions")
    clock.watch(Race, "next", "suggestions")
    for method in ("record", "report", "finish", "annotate"):
        clock.watch(OptunaSearcher, method, "Optuna's record")
    clock.watch(EventLog, "append", "event log")
    clock.watch(MlflowTracker, "_round", "MLflow, in its thread")
    return clock


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Milliseconds per report, over the whole study and over its first and last trials."""
    last = samples[-1]
    first_part = [s for s in samples if s.ended <= GROUP]
    last_part = [s for s in samples if s.ended >= last.ended - GROUP]
    middle = samples[len(samples) // 4]
    return {
        "reports": last.reports,
        "all": _stretch(samples),
        f"first {GROUP} trials": _stretch(first_part),
        f"last {GROUP} trials": _stretch(last_part),
        "resident MiB after a quarter": middle.rss_mib,
        "resident MiB at the end": last.rss_mib,
    }


def _stretch(part: Sequence[Sample]) -> dict[str, float]:
    first, last = part[0], part[-1]
    reports = max(1, last.reports - first.reports)
    loop, suggest = last.loop_s - first.loop_s, last.suggest_s - first.suggest_s
    return {
        "reports": reports,
        "CPU ms a report": (last.cpu_s - first.cpu_s) / reports * 1e3,
        "of these Tune's loop": loop / reports * 1e3,
        "of these suggestions": suggest / reports * 1e3,
        "Tune's loop without suggestions": (loop - suggest) / reports * 1e3,
        "wall ms a report": (last.wall_s - first.wall_s) / reports * 1e3,
    }


def _lost(view: StudyView, events: Path, database: str) -> dict[str, int]:
    """Numbers of missing, wrong and duplicate reports, in the event log and in MLflow."""
    from ptal_ray.benchmarks.dummy import made_up
    from ptal_ray.study.events import read_events

    written = [(e.trial, e.step) for e in read_events(events) if isinstance(e, Report)]
    steps = view.study.space["budget"]
    wrong = gaps = 0
    due = [step for step in (10, 30, 90, 270) if step <= steps["max_steps"]]
    for trial in view.trials:
        had = [r.step for r in trial.reports]
        whole = trial.state == "complete"
        gaps += had != due[: len(had)] or (whole and had != due)
        wrong += sum(
            r.objective != made_up(trial.params, r.step)["objective"] for r in trial.reports
        )
    with closing(sqlite3.connect(database)) as tables:
        (logged,) = tables.execute(
            "select count(*) from metrics where key in ('objective', 'objective_last')"
        ).fetchone()
    return {
        "trials with a missing report": gaps,
        "wrong reports": wrong,
        "repeated reports": len(written) - len(set(written)),
        "reports that MLflow lacks": len(set(written)) - logged,
    }
