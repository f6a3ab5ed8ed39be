"""What a person sees of a running study: a table that fits, and how long it still takes."""

from __future__ import annotations

import io
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_study import small_study
from synthetic_study import SyntheticStudy

from ptal_ray.reporting.progress import Progress
from ptal_ray.reporting.remaining import Work, influential, seconds_left, work
from ptal_ray.reporting.run_progress import following
from ptal_ray.study.event_types import FinalReport, Report, TrialEnd, TrialStart
from ptal_ray.study.view import GrowingView, StudyView

NAME = "apn_demo-20260801-120000"


EVENTS = [
    TrialStart(trial=0, params={"lr": 0.002, "weight_decay": 1e-5}, from_step=0),
    Report(trial=0, step=40, objective=0.43219, metrics={}, decode={}, seconds=1.0),
    TrialEnd(trial=0, state="complete", message=""),
    TrialStart(trial=1, params={"lr": 0.009, "weight_decay": 1e-4}, from_step=0),
    TrialEnd(trial=1, state="failed", message="loss is nan"),
    FinalReport(role="test", arm="best", seed=1, params={}, decode={}, step=40,
          metrics={"test/mAP_avg": 0.25, "test/num_videos": 7.0}, detections=""),
    FinalReport(role="test", arm="best", seed=2, params={}, decode={}, step=40,
          metrics={}, detections="", message="loss is nan"),
]  # fmt: skip


def shown(study, view, width):
    """The lines of the live table of a study that is at `view`."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    progress = Progress(study, console, live=False, quiet=True)
    progress.growing = GrowingView(view)
    console.print(progress.render())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_cuts_no_number(tmp_path, width):
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    made.trials(20)
    made.start(20)
    study = replace(small_study(tmp_path / "x"), space=made.space, num_trials=24)
    lines = shown(study, StudyView.read(made.directory), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in re.sub("refresh_…|refresh…", "", text)
    assert "running" in text and "complete" in text and "90/90" in text and "0/90" in text
    assert re.match(r"best 0\.\d+ \(trial \d+\) · trials 20/24 · ", lines[-1])
    (row,) = [line for line in lines if "★" in line]
    assert re.search(r"│ +\d+ │ complete +│ +90/90 │ +\d\d\.\d │ +0\.\d+ +│", row)


def test_parameters_that_matter_come_first(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    made.trials(3)
    trials = StudyView.read(made.directory).trials
    assert influential(trials, ["refresh_every", "lr"]) == ["refresh_every", "lr"]  # too early
    made.trials(20)
    trials = StudyView.read(made.directory).trials
    assert influential(trials, ["refresh_every", "lr"]) == ["lr", "refresh_every"]


def test_the_bar_goes_on_through_the_final_runs_to_the_end(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    shares = [work(StudyView.read(made.directory), made.space, 6).share]
    for number in range(6):
        made.trial(number)
        shares.append(work(StudyView.read(made.directory), made.space, 6).share)
    made.finals()
    made.end()
    shares.append(work(StudyView.read(made.directory), made.space, 6).share)
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert shares[-2] == pytest.approx(6 * 90 / (6 * 90 + 12 * 90))


def test_time_left_is_known_from_the_first_report_and_a_budget_limits_the_search():
    own = Work(done=100, search=300, total=400, begun=True)
    assert seconds_left(own, 0, 50.0, None) == pytest.approx(0.5 * 200 + 0.5 * 100)
    assert seconds_left(own, 0, 50.0, 20.0) == pytest.approx(20 + 0.5 * 100)
    assert seconds_left(own, 100, 50.0, None) is None
    assert seconds_left(replace(own, begun=False), 0, 50.0, None) is None


class Training:
    """Stands in for a trial."""

    step = 0


def test_a_long_run_says_how_far_it_is():
    text = io.StringIO()
    trial = Training()
    with following(trial, 100, text, every_s=0.05):
        for step in (10, 50, 100):
            trial.step = step
            time.sleep(0.12)
    lines = text.getvalue().splitlines()
    assert any(
        re.fullmatch(r"step 50 of 100, \d+:\d\d so far, about \d+:\d\d left", x) for x in lines
    )
    assert any(re.fullmatch(r"step 100 of 100, \d+:\d\d so far, scoring", x) for x in lines)
    assert len(lines) == len(set(lines))


def test_a_run_that_fails_ends_its_lines():
    text = io.StringIO()
    with pytest.raises(KeyboardInterrupt), following(Training(), 100, text, every_s=0.01):
        raise KeyboardInterrupt
    before = text.getvalue()
    time.sleep(0.05)
    assert text.getvalue() == before


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path)
    with Progress(study, Console(file=sys.stdout), live=False, quiet=False) as progress:
        for e in EVENTS:
            progress.event(e)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "trial    0  complete  step     40  val mAP 0.4322  lr=0.002 weight_decay=1e-05",
        "trial    1  failed    step      0  val mAP -  lr=0.009 weight_decay=0.0001  (loss is nan)",
        "test      best        seed 1  test mAP 0.25 of 7 videos",
        "test      best        seed 2  test mAP -  (loss is nan)",
    ]
    with Progress(study, Console(file=sys.stdout), live=False, quiet=True) as progress:
        progress.event(EVENTS[0])
    assert capsys.readouterr().out == ""


def test_a_live_table_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = small_study(tmp_path, time_budget_s=600.0)
    console = Console(file=sys.stdout, force_terminal=True, width=100)
    with Progress(study, console, live=True, quiet=False) as progress:
        for e in EVENTS[:5]:
            progress.event(e)
        console.print(progress.render())
        progress.event(EVENTS[5])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert re.search(r"★ │ +0 │ complete +│ 40/40 │ +43\.2", text)
    assert re.search(r"│ +1 │ failed", text)
    assert "best 0.4322 (trial 0) · trials 2/4" in text
    assert re.search(r"about \d+:\d\d left", text)
    assert "test mAP 0.25" in text
