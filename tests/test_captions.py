"""What tables, the terminal and MLflow call the configurations that were tested."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_store
from rich.console import Console
from small_study import small_study
from synthetic_study import SyntheticStudy

from ptal_ray.data.store import FeatureStore
from ptal_ray.reporting.benchmark import read_benchmark
from ptal_ray.reporting.comparison import compared
from ptal_ray.reporting.html.leaderboard import leaderboard_html
from ptal_ray.reporting.html.report import report_html
from ptal_ray.reporting.leaderboard import leaderboard
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.progress import Progress
from ptal_ray.reporting.report import write_report
from ptal_ray.reporting.text import leaderboard_text
from ptal_ray.study.captions import arm_label, num_test_videos, of_videos, trial_of
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.view import StudyView
from ptal_ray.tracking.runs import Round

pytestmark = pytest.mark.usefixtures("empty_plots")

NAME = "apn_demo-20260801-120000"


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    """Trial 2 is recommended; its configuration and the defaults are tested."""
    made = SyntheticStudy(tmp_path / NAME, FeatureStore.open(make_store(tmp_path / "store")))
    made.begin()
    made.trials(4)
    made.append(
        "recommended", arm=2, trial=2, params={"lr": 0.01}, decode={}, verdict="better",
        difference={"mean": 0.1, "low": 0.05, "high": 0.15, "cells": 8},
    )  # fmt: skip
    for arm, quality in (("best", 0.55), ("default", 0.4)):
        for seed in range(2):
            made.final("test", arm, seed, quality + 0.01 * seed)
    made.end()
    return made


def test_the_reports_name_the_trial_that_was_trained_again(
    study: SyntheticStudy, tmp_path: Path
) -> None:
    folder = write_report(study.directory, tmp_path / "reports")
    text = (folder / "REPORT.md").read_text()
    assert "| recommended (trial 2) | 2 |" in text and "| recommended (trial 2) | 1 |" in text
    assert "| defaults | 2 |" in text
    assert "| parameter | recommended (trial 2) | default | searched |" in text
    page = (folder / "report.html").read_text()
    assert "recommended (trial 2)</td>" in page and "AP, %, recommended (trial 2)</th>" in page


def test_mlflow_names_the_trial_that_was_trained_again(study: SyntheticStudy) -> None:
    events = read_events(study.log.path)
    runs = Round(StudyView(), events, study.directory).updates
    assert {"test/best", "test/best/seed0", "test/default/seed1"} <= runs.keys()  # do not change
    assert runs["test/best"].name == "test best (trial 2)"
    assert runs["test/best/seed1"].name == "seed 1 of test best (trial 2)"
    assert runs["test/best"].tags["trial"] == runs["test/best/seed1"].tags["trial"] == "2"
    assert runs["test/default"].name == "test default"
    assert "trial" not in runs["test/default"].tags | runs["test/default/seed0"].tags
    assert "| recommended (trial 2) | 2 |" in runs["study"].tags["mlflow.note.content"]
    rest = [event for event in events if event.kind == "final_report"][1:]
    later = Round(StudyView.from_events(events[: events.index(rest[0])]), rest, study.directory)
    assert later.updates["test/best"].name == "test best (trial 2)"


def test_the_terminal_names_the_trial_that_was_trained_again(
    study: SyntheticStudy, tmp_path: Path
) -> None:
    own = small_study(tmp_path)
    log = EventLog(own.events)
    console = Console(file=io.StringIO(), width=120)
    events = read_events(study.log.path)
    for event in events[:-5]:
        log.append(event)
    with Progress(own, console, live=False, quiet=False) as progress:
        for event in events[-5:]:
            progress.event(event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("test      best (trial 2)   seed 0  test mAP 0.44 of 210 videos")
    assert lines[2].startswith("test      default          seed 0  test mAP 0.32 of 210 videos")


def test_the_number_of_test_videos_stands_beside_every_result(
    study: SyntheticStudy, tmp_path: Path
) -> None:
    view = StudyView.read(study.directory)
    own = replace(small_study(tmp_path), directory=study.directory)
    outcome = summary(own, tmp_path, ())
    best, default = [line for line in show_summary(outcome).splitlines() if "test mAP, " in line][
        :2
    ]
    assert best == "test mAP, recommended   44.4 ± 0.6  (trial 2, 2 seeds, 210 videos)"
    assert default == "test mAP, defaults      32.4 ± 0.6  (2 seeds, 210 videos)"
    page = report_html(view, read_benchmark(view, study.directory), [])
    assert "<th>test mAP of 210 videos, %</th>" in page
    note = Round(StudyView(), read_events(study.log.path), study.directory).updates["study"].tags
    assert "| test mAP of 210 videos, % |" in note["mlflow.note.content"]
    (row,) = leaderboard([view])
    head, _, line = leaderboard_text([row]).splitlines()[:3]
    column = head.split(" | ").index("test videos")
    assert line.split(" | ")[column] == "210"
    both = leaderboard_html([view], compared({study.directory: view}))
    assert "<th>test videos</th>" in both and "<td>210</td>" in both
    assert (outcome["test_videos"], row["test_videos"]) == (210, 210)


def test_the_number_of_test_videos_of_a_study_without_test_runs(study: SyntheticStudy) -> None:
    view = replace(StudyView.read(study.directory), finals=())
    assert num_test_videos(view) is None and of_videos(view) == ""  # of an earlier version
    known = replace(view, start=replace(view.study, test_videos=7))
    assert num_test_videos(known) == 7 and of_videos(known) == " of 7 videos"


def test_only_what_has_a_trial_is_named_by_it(study: SyntheticStudy) -> None:
    view = StudyView.read(study.directory)
    assert trial_of(view, "best") == 2 and trial_of(view, "default") is None
    assert view.recommended is not None
    tuned = replace(view, recommended=replace(view.recommended, arm=0, trial=None))
    assert arm_label(tuned, "best") == arm_label(StudyView(), "best") == "recommended"
    assert arm_label(view, "validated") == "chosen by validation"
