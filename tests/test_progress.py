"""What a person sees of a running study: a table that fits, and how long it still takes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_store
from rich.console import Console
from small_study import small_space, small_study
from synthetic_study import SyntheticStudy

import ptal_ray
from ptal_ray.reporting import progress
from ptal_ray.reporting.progress import Progress
from ptal_ray.reporting.remaining import Work, influential, seconds_left, work
from ptal_ray.reporting.run_progress import following
from ptal_ray.study.event_types import FinalReport, Recommendation, Report, TrialEnd, TrialStart
from ptal_ray.study.events import read_events
from ptal_ray.study.view import IncrementalView, StudyView

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
    progress.growing = IncrementalView(view)
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
    used = r"best 0\.\d+ \(trial \d+\) · (\d+\.\d) of 24 full runs · "
    assert (found := re.match(used, lines[-1])) and 0 < float(found[1]) < 20
    (row,) = [line for line in lines if "★" in line]
    assert re.search(r"│ +\d+ │ complete +│ +90/90 │ +\d\d\.\d │ +0\.\d+ +│", row)


def test_trials_of_a_race_name_their_fold(tmp_path):
    """The same configuration runs on several folds: without them its scores seem to contradict."""
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    made.trials(3)
    study = replace(small_study(tmp_path / "x"), space=made.space)
    view = StudyView.read(made.directory)
    assert not any("fold" in line for line in shown(study, view, 80))
    cells = [replace(t, fold=t.number + 4, seed=3000, stage="race") for t in view.trials]
    folded = replace(view, trials=cells)
    assert any(line.startswith("best 0.") for line in shown(study, view, 80))
    lines = shown(study, folded, 80)
    best = view.best.number
    said = rf"★ best single run 0\.\d+ \(trial {best}\); runs differ in fold and seed"
    assert re.match(said, lines[-2]) and not lines[-1].startswith("best")
    found = Recommendation(arm=best, trial=best, params={}, decode={}, verdict="better")
    after = shown(study, replace(folded, recommended=found), 80)
    assert after[-2].startswith(f"★ recommended: trial {best}, 0.")
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"│ +2 │ +6 │ (complete|pruned) +│", line) for line in lines)
    line = progress._trial_line(folded.trials[2])
    assert line.startswith("trial    2  race   fold 6 seed 3000  ")
    assert "fold" not in progress._trial_line(view.trials[2])


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
    space = replace(made.space, policy="simple")
    shares = [work(StudyView.read(made.directory), space, 6).share]
    for number in range(6):
        made.trial(number)
        shares.append(work(StudyView.read(made.directory), space, 6).share)
    made.finals()
    made.end()
    shares.append(work(StudyView.read(made.directory), space, 6).share)
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert shares[-2] == pytest.approx(6 * 90 / (6 * 90 + 12 * 90))


def test_a_race_trains_nothing_again_also_before_its_first_trial(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    assert work(StudyView.read(made.directory), made.space, 6).total == (6 + 6) * 90


def test_a_race_has_left_what_its_trials_did_not_train(tmp_path):
    """Its budget is in full runs; most trials are shorter, so that more trials fit."""
    made = SyntheticStudy(tmp_path / NAME)
    made.begin()
    made.trials(6)
    view = StudyView.read(made.directory)
    ended = [(t.state, t.reports[-1].step) for t in view.trials]
    assert sorted(ended) == [("complete", 90)] * 2 + [("failed", 10)] + [("pruned", 10)] * 3
    race = work(view, made.space, 8)
    assert race.spent == pytest.approx(2 + 1 + 3 * 10 / 90)  # what fails counts in full
    assert race.search == 220 + round((8 - race.spent) * 90)
    simple = work(view, replace(made.space, policy="simple"), 8)
    assert (simple.spent, simple.search) == (6, 220 + round(2 * 220 / 6))


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
    with following(trial, 100, to=text, every_s=0.05):
        for step in (10, 50, 100):
            trial.step = step
            time.sleep(0.12)
    lines = text.getvalue().splitlines()
    assert any(
        re.fullmatch(r"step 50 of 100, \d+:\d\d so far, about \d+:\d\d left", x) for x in lines
    )
    assert any(re.fullmatch(r"step 100 of 100, \d+:\d\d so far, scoring", x) for x in lines)
    assert len(lines) == len(set(lines))


def test_lines_name_the_stage_that_trains():
    text, trial = io.StringIO(), Training()
    with following(trial, 100, "stage apn", to=text, every_s=0.05):
        trial.step = 50
        time.sleep(0.12)
    assert re.match(r"stage apn: step 50 of 100, \d+:\d\d so far, about ", text.getvalue())


def test_a_run_that_fails_ends_its_lines():
    text = io.StringIO()
    with pytest.raises(KeyboardInterrupt), following(Training(), 100, to=text, every_s=0.01):
        raise KeyboardInterrupt
    before = text.getvalue()
    time.sleep(0.05)
    assert text.getvalue() == before


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
from ptal_ray import search
from ptal_ray.backends import search as backend
from ptal_ray.process.console import run_main
from ptal_ray.study.event_types import TrialStart

def session(study, *, signals, listen, say, **others):
    now = time.time()
    params = {"lr": 0.002}
    listen(TrialStart(time=now, trial=0, params=params))
    time.sleep(0.6)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.6)
    raise KeyboardInterrupt

backend.run_session = session
run_main(lambda: search.main(["small.yaml", *sys.argv[1:]]))
"""


class Screen:
    """What a terminal shows of text with the few controls that a live table uses."""

    def __init__(self, text: str) -> None:
        self.lines, self.row, self.cursor = [""], 0, True
        for piece in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
            self._take(piece)

    def _take(self, piece: str) -> None:
        column = len(self.lines[self.row])
        if piece == "\n":
            self.row += 1
            self.lines += [""] * (self.row == len(self.lines))
        elif piece == "\r" or piece.endswith("m"):
            return  # what follows is an erasure or the next line
        elif piece.endswith("K"):
            self.lines[self.row] = ""
        elif piece.endswith("A"):
            self.row -= int(piece[2:-1] or 1)
        elif piece in ("\x1b[?25h", "\x1b[?25l"):
            self.cursor = piece.endswith("h")
        else:
            self.lines[self.row] = self.lines[self.row][:column] + piece


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_leaves_a_clean_screen(tmp_path, flags):
    store = make_store(tmp_path / "tiny", train=9)
    text = small_space().to_yaml().replace("dataset: tiny", f"dataset: {store}")
    (tmp_path / "small.yaml").write_text(text)
    ours, theirs = pty.openpty()
    root = Path(ptal_ray.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "80", "TERM": "xterm"}
    streams = {"stdout": subprocess.PIPE if flags else theirs, "stderr": theirs}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *flags], cwd=tmp_path, env=env, **streams
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads
        while part := os.read(ours, 65536):
            shown += part
    assert process.wait(60) == 130
    if process.stdout:
        assert json.loads(process.stdout.read())["state"] == "interrupted"
        process.stdout.close()
    os.close(ours)
    text = shown.decode()
    assert "running" in text and "stopping; a second signal stops immediately" in text
    screen = Screen(text)
    (study,) = (tmp_path / "studies").iterdir()
    assert screen.cursor
    assert [line for line in screen.lines if line.strip() and not line.startswith("plan ")] == [
        "interrupted; to continue, run",
        f"  python -m ptal_ray.search --resume studies/{study.name}",
    ]


def test_the_end_of_a_study_says_what_is_left_to_do(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    view = StudyView.read(made.whole(6))
    study = replace(small_study(tmp_path / "x"), space=made.space, num_trials=6)
    assert shown(study, view, 80)[-1].endswith(
        " · 6 trials · 0:00 · final runs 12 · writing the report"
    )


def test_a_growing_view_is_the_view_of_the_whole_log(tmp_path):
    made = SyntheticStudy(tmp_path / NAME)
    made.whole()
    events = read_events(made.log.path)
    growing = IncrementalView(StudyView())
    for number, event in enumerate(events, 1):
        growing.take(event)
        if number % 7 == 0:
            assert growing.view == StudyView.from_events(events[:number])
    assert growing.view == StudyView.from_events(events) and growing.view is growing.view
    assert growing.study == events[0]


def test_a_final_run_is_named_by_its_real_seed(tmp_path):
    study = small_study(tmp_path)
    run = FinalReport(role="test", arm="best", seed=0, run_seed=7, params={}, decode={}, step=40,
                      metrics={"test/mAP_avg": 0.25}, detections="")  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    Progress(study, console, live=False, quiet=False).event(run)
    assert "seed 7 " in console.file.getvalue()  # as in REPORT.md
