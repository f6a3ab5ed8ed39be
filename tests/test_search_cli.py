"""The search command: flags, exit codes, what is printed, and a study that survives anything."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import HANG_S, make_store
from small_study import small_space, small_study

import ptal_ray
from ptal_ray import search
from ptal_ray.backends.session import Signals
from ptal_ray.errors import NoTrialFinished
from ptal_ray.reporting.plan import plan_text
from ptal_ray.storage.lock import locked
from ptal_ray.study import flags, from_flags
from ptal_ray.study.event_types import (
    Event,
    FinalReport,
    Recommendation,
    Report,
    StudyEnd,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.study import read_study, write_study
from ptal_ray.study.view import StudyView
from ptal_ray.tracking.server import tracking_uri

MARK = "PTAL_SEARCH_TEST"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a search space small.yaml on a tiny store."""
    store = make_store(tmp_path / "tiny", train=9)
    lay_out(tmp_path, store)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def lay_out(folder: Path, store: Path, *overrides: str) -> None:
    text = small_space(*overrides).to_yaml().replace("dataset: tiny", f"dataset: {store}")
    (folder / "small.yaml").write_text(text)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("300s", 300), ("10m", 600), ("1.5h", 5400)]
)
def test_times(text: str, value: float) -> None:
    assert flags.seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0s", "10 d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time"):
        flags.seconds(text)


def test_a_dry_run_does_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    args = ["small.yaml", "--dry-run", "--num-trials", "3", "--time-budget", "10m", "--seed", "7"]
    assert search.main([*args, "--json"]) == 0
    told = capsys.readouterr()
    plan = json.loads(told.out)
    assert plan["report_steps"] == [10, 20, 40]
    assert (plan["num_trials"], plan["time_budget_s"], plan["seed"]) == (3, 600, 7)
    assert plan["concurrent_trials"] >= 1
    assert 0 < plan["storage"]["most_bytes"] < plan["storage"]["free_bytes"]
    assert plan["data"]["store"] == str(folder / "tiny")
    assert plan["study"].startswith(str(folder / "studies" / "small-"))
    assert plan["mlflow"] == f"sqlite:///{folder}/mlflow.db"
    assert plan["time"]["low_s"] <= plan["time"]["high_s"]
    assert search.main(args) == 0
    text = capsys.readouterr().out
    assert "\n  lr: {loguniform: [0.001, 0.01]}\n" in text
    assert "\nbudget: {trials: 3, " in text  # as in the line of trials and in --json
    assert re.search(r"\ntime        \d+ .* at a time, at .* s a step", text)
    assert re.search(r"\nroom        at most \d.* at once: .* are free", text)
    assert "\nreports     at steps 10, 20 and 40 of a trial\n" in text
    assert "\ntrials      3 full ones, " in text and ", at most 0:10:00 for the search\n" in text
    assert "\nprotocol    sealed\n" in text and "warm start" not in text
    assert "{'" not in text and "None" not in text
    assert sorted(folder.rglob("*")) == before


def test_a_dry_run_says_of_every_limit_and_of_points(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["small.yaml", "--dry-run", "--json", "--time-budget", "10m"]
    assert search.main([*words, "--points", "human"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["space"]["points"] == "human:seed=0"
    assert "\npoints: 'human:seed=0'\n" in told.err
    text = plan_text(json.loads(told.out) | {"gpu_hours": 0.5})
    assert ", at most 0:10:00 and 0.5 GPU hours for the search\n" in text
    assert "\n            points drawn anew: human:seed=0\n" in text


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nothing"], 2, "search space 'nothing' is unknown"),
        (["small.yaml", "--set", "train.lrr=1"], 2, "did you mean 'lr'"),
        (["small.yaml", "--num-trials", "0"], 2, "--num-trials 0"),
        (["small.yaml", "--gpu-hours", "1"], 2, r"--gpu-hours: .* use no GPU .* --time-budget"),
        (["small.yaml", "--max-concurrent", "0"], 2, "--max-concurrent 0"),
        (["small.yaml", "--autoscale"], 2, "--autoscale requires --max-concurrent N"),
        (
            ["small.yaml", "--autoscale", "--max-concurrent", "2"],
            2,
            "--autoscale requires a cluster; pass --address",
        ),
        (["small.yaml", "--searcher", "grid", "--num-trials", "3"], 2, "coarsest grid"),
        (["small.yaml", "--dry-run", "--set", "resources.workers=999"], 2, "999 workers x 1 CPUs"),
        (["small.yaml", "--dataset", "thumos14"], 3, r"import.*--dataset watch"),
        (["small.yaml", "--resume"], 2, "--resume: .* holds no study of small"),
        (["small.yaml", "--seed", "-1"], 2, "--seed -1: must be a whole number"),
        (["small.yaml", "--storage", "small.yaml"], 2, "--storage .*cannot be written"),
        (
            ["small.yaml", "--storage", "gs://b/c"],
            2,
            "gs://b/c: allowed are a path or s3://bucket/prefix",
        ),
        (["small.yaml", "--storage", "s3://k:v@b/c"], 2, "credentials or options"),
        (["small.yaml", "--keep-checkpoints", "0"], 2, "--keep-checkpoints 0: must be positive"),
        (
            ["small.yaml", "--out", "small.yaml/x"],
            2,
            r"--out \S*small.yaml/x: \S*/small.yaml cannot be written \(Not a directory\)",
        ),
        (
            ["--resume", "studies/none"],
            2,
            f"error: {os.sep}.*[^s]/studies/none/study.json: No such",
        ),
        (["--resume", "none"], 2, "/studies/none/study.json: No such file .*give the directory"),
        (["small.yaml", "--resume", "--seed", "3"], 2, "--seed: a resumed study keeps its own"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, message: str
) -> None:
    before = sorted(folder.rglob("*"))
    assert search.main([*args, "--json"]) == code
    told = capsys.readouterr()
    assert re.search(message, told.err), told.err
    assert told.err.startswith("error: ")
    found = json.loads(told.out)
    assert found["exit_code"] == code
    assert f"error: {found['error']}\n" == told.err
    assert sorted(folder.rglob("*")) == before


def test_reports_lie_where_out_says_and_the_word_of_earlier_versions_still_holds() -> None:
    assert flags.parse(["x", "--out", "a"]).out == Path("a")
    assert flags.parse(["x", "--reports", "a"]).out == Path("a")
    assert flags.parse(["x"]).out == Path("reports")


def test_a_search_needs_a_space(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        search.main([])
    assert exit.value.code == 2
    assert "or --resume STUDY" in capsys.readouterr().err


def test_a_second_process_takes_nothing_from_a_study_that_is_starting(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(folder / "more")
    before = (study.directory / "study.json").read_bytes()
    with locked(study.directory / "lock", wait=False):
        words = ["--resume", str(study.directory), "--num-trials", "9", "--quiet"]
        assert search.main(words) == 2
    assert "another process runs this study" in capsys.readouterr().err
    assert (study.directory / "study.json").read_bytes() == before


def test_no_finished_trial_is_exit_4(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **settings: Any) -> None:
        raise NoTrialFinished("none of 4 trials reached step 40")

    monkeypatch.setattr("ptal_ray.backends.search.run_session", fails)
    assert search.main(["small.yaml"]) == 4
    assert "none of 4 trials" in capsys.readouterr().err


def test_what_a_resume_may_change(folder: Path) -> None:
    study = small_study(folder / "more", time_budget_s=9.0)
    name = ["--resume", study.name, "--storage", str(folder / "more" / "studies")]
    found = from_flags.resumed(flags.parse([*name, "--num-trials", "9", "--time-budget", "2m"]))
    assert (found.num_trials, found.time_budget_s, found.seed) == (9, 120.0, study.seed)
    assert read_study(study.directory) == study  # until it holds the study alone
    write_study(found)
    log = EventLog(study.events)
    log.append(FinalReport(role="test", arm="default", seed=0, params={}, decode={}, step=40,
               metrics={}, detections=""))  # fmt: skip
    assert search.main([*name, "--num-trials", "12"]) == 2
    assert read_study(study.directory).num_trials == 9
    args = flags.parse([*name, "--out", "some where", "--address", "ray://x:1"])
    assert shlex.split(from_flags.resume_command(study, args)) == [
        "python", "-m", "ptal_ray.search", "--resume", os.path.relpath(study.directory),
        "--out", "some where", "--address", "ray://x:1",
    ]  # fmt: skip


def test_signals_ask_once_and_are_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert not signals.asked
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert signals.asked
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert "a second signal stops immediately" in capfd.readouterr().err


def test_the_second_signal_ends_the_process() -> None:
    code = (
        "import os, signal, time; from ptal_ray.backends.session import Signals\n"
        "with Signals():\n for _ in range(2): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE).returncode == 130


def ended_well(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], StudyEnd) and events[-1].state == "done"


def wait_for(study: Path, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Returns once the events of the first study below a folder satisfy `holds`."""
    until = time.time() + HANG_S
    while time.time() < until:
        found = list(study.glob("*/events.jsonl"))
        events = read_events(found[0]) if found else []
        if holds(events):
            return
        assert not ended_well(events), "the study ended before it got there"
        time.sleep(0.05)
    raise AssertionError("the study did not get there in time")


def started(folder: Path, *args: str, uri: str | None = None) -> subprocess.Popen[str]:
    root = Path(ptal_ray.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root), MARK: str(folder), "OMP_NUM_THREADS": "1"}
    env.pop("MLFLOW_TRACKING_URI", None)
    env.pop("RAY_ADDRESS", None)
    env |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    command = [sys.executable, "-m", "ptal_ray.search", *args]
    return subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def left_over(folder: Path) -> Iterator[psutil.Process]:
    """Processes that a search in `folder` left."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                yield process
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue


def gone(folder: Path) -> bool:
    """Whether a killed search leaves no process; one that Ray was starting waits minutes for it."""
    until = time.time() + HANG_S / 3
    while time.time() < until and list(left_over(folder)):
        time.sleep(0.1)
    return not list(left_over(folder))


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study killed with -9, resumed, interrupted with Ctrl-C, and resumed to its end."""
    folder = tmp_path_factory.mktemp("survivor")
    overrides = ("budget.max_steps=320", "final.seeds=1", "budget.trials=6")
    lay_out(folder, make_store(folder / "tiny", train=9), *overrides)
    studies = folder / "studies"

    first = started(folder, "small.yaml")

    def one_ended_and_one_runs(events: list[dict[str, Any]]) -> bool:
        reported = {e.trial for e in events if isinstance(e, Report)}
        ended = {e.trial for e in events if isinstance(e, TrialEnd)}
        return bool(ended and reported - ended)

    wait_for(studies, one_ended_and_one_runs)
    first.kill()
    first.communicate()
    (directory,) = studies.iterdir()
    killed = read_events(directory / "events.jsonl")
    killed_clean = gone(folder)

    second = started(folder, "--resume", str(directory))
    wait_for(studies, lambda events: any(isinstance(e, Report) for e in events[len(killed) :]))
    second.send_signal(signal.SIGINT)
    _, said = second.communicate(timeout=HANG_S)
    interrupted = read_events(directory / "events.jsonl")
    interrupted_clean = gone(folder)

    command = shlex.split(said.strip().splitlines()[-1])
    third = started(folder, *command[3:], "--json")
    printed, shown = third.communicate(timeout=HANG_S)
    return {
        "folder": folder, "directory": directory, "killed": killed, "killed_clean": killed_clean,
        "interrupted": interrupted, "interrupted_clean": interrupted_clean, "said": said,
        "codes": (first.returncode, second.returncode, third.returncode),
        "printed": printed, "shown": shown,
    }  # fmt: skip


@pytest.mark.search
@pytest.mark.slow
def test_exit_codes_of_a_killed_an_interrupted_and_a_finished_search(
    survivor: dict[str, Any],
) -> None:
    assert survivor["codes"] == (-signal.SIGKILL, 130, 0), survivor["said"] + survivor["shown"]
    assert survivor["killed_clean"]
    assert survivor["interrupted_clean"]
    directory = survivor["directory"].relative_to(survivor["folder"])
    assert f"python -m ptal_ray.search --resume {directory}" in survivor["said"]
    assert isinstance(survivor["interrupted"][-1], StudyEnd)
    assert survivor["interrupted"][-1].state == "interrupted"


@pytest.mark.search
@pytest.mark.slow
def test_no_finished_trial_is_lost_or_repeated(survivor: dict[str, Any]) -> None:
    events = read_events(survivor["directory"] / "events.jsonl")
    assert events[: len(survivor["interrupted"])] == survivor["interrupted"]
    ends = [e.trial for e in events if isinstance(e, TrialEnd)]
    assert sorted(ends) == list(range(6))
    for number in range(6):
        mine = [
            e
            for e in events
            if getattr(e, "trial", None) == number and not isinstance(e, Recommendation)
        ]
        starts = [e for e in mine if isinstance(e, TrialStart)]
        assert all(e.params == starts[0].params for e in starts)
        assert isinstance(mine[-1], TrialEnd)
    running = _running(survivor["killed"])
    again = [e for e in events[len(survivor["killed"]) :] if isinstance(e, TrialStart)]
    assert running <= {e.trial for e in again}
    assert any(e.from_step > 0 for e in again)


def _running(events: list[dict[str, Any]]) -> set[int]:
    view = StudyView.from_events(events)
    return {t.number for t in view.trials if t.state == "running"}


@pytest.mark.search
@pytest.mark.slow
def test_one_json_object_and_where_everything_lies(survivor: dict[str, Any]) -> None:
    outcome = json.loads(survivor["printed"])
    folder = survivor["folder"]
    assert survivor["printed"].count("\n") == 1
    assert outcome["state"] == "done"
    assert sum(outcome["trials"].values()) == 6
    assert outcome["trials"]["running"] == 0
    assert set(outcome["test"]) == {"best", "default"}
    mean = outcome["test"]["best"]["test/mAP_avg"]["mean"]
    assert f"test mAP, recommended  {100 * mean:5.1f}" in survivor["shown"]
    assert (folder / outcome["report"] / "REPORT.md").exists()
    assert outcome["mlflow"] == f"sqlite:///{folder}/mlflow.db"
    assert f"mlflow ui --backend-store-uri {outcome['mlflow']}" in survivor["shown"]
    assert outcome["unlogged"] == []


@pytest.mark.search
def test_an_unreachable_tracking_server_is_told_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert search.main(["small.yaml"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert not list((folder / "studies").iterdir())
    assert tracking_uri() == "http://127.0.0.1:9"
