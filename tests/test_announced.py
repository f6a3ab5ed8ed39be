"""What a search says before it runs, and as JSON."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import make_store
from small_study import begun, small_study
from test_search_cli import lay_out

from ptal_ray import search
from ptal_ray.errors import NoTrialFinished
from ptal_ray.study.event_types import StudyEnd, TrialStart
from ptal_ray.study.events import EventLog


def test_a_search_says_before_its_first_trial_what_it_will_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path, make_store(tmp_path / "tiny", train=9))
    monkeypatch.chdir(tmp_path)
    told: list[str] = []

    def begins(*args: Any, **settings: Any) -> None:
        told.append(capsys.readouterr().out)
        raise NoTrialFinished("none of 4 trials reached step 40")

    monkeypatch.setattr("ptal_ray.backends.search.run_session", begins)
    words = ["small.yaml", "--num-trials", "20", "--policy", "race", "--time-budget", "10m"]
    for more in ([], ["--quiet"], ["--json"]):
        assert search.main([*words, *more]) == 4
    assert told[1:] == ["", ""]
    (line,) = told[0].splitlines()
    assert line.startswith("plan    20 full runs, at most 10 min for the trials: about 20 trials, ")
    assert re.search(r"compared in \d new runs each.*; then \d to \d test runs", line)


def test_json_has_no_bare_nan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The bounds of an interval of one seed are not known.
    monkeypatch.setattr("ptal_ray.backends.search.search", lambda args, say: {"low": math.nan})
    assert search.main(["small.yaml", "--json"]) == 0
    assert capsys.readouterr().out == '{"low": "NaN"}\n'


def test_a_dry_run_of_a_resumed_study_says_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begun(small_study(tmp_path))
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    monkeypatch.setattr("ptal_ray.backends.search.dry_run", lambda study, args: {})
    monkeypatch.setattr("ptal_ray.backends.search.plan_text", lambda plan: "")
    words = ["--resume", str(study.directory), "--dry-run"]
    log = EventLog(study.events)
    log.append(TrialStart(trial=0, params={}))
    assert search.main(words) == 0
    assert "has started 1 trial; --resume runs only what is left" in capsys.readouterr().err
    log.append(StudyEnd(state="done"))
    assert search.main(words) == 0
    assert "has ended; --resume runs nothing more" in capsys.readouterr().err
