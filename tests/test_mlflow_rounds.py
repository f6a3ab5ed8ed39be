"""When a tracker writes: in rounds that events share, and after the search until nothing moves."""

from __future__ import annotations

import threading
import time

import pytest
from conftest import HANG_S
from mlflow_numbers import assert_all_numbers
from mlflow_service import fresh_database
from synthetic_study import SyntheticStudy
from tracked_study import grow, runs_of, wait_until

from ptal_ray.study.events import read_events
from ptal_ray.tracking import tracker as mlflow_tracker
from ptal_ray.tracking.server import Server
from ptal_ray.tracking.tracker import MlflowTracker


@pytest.fixture
def uri(tmp_path, monkeypatch):
    """A database of its own; the working directory is beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(fresh_database())
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def study(tmp_path):
    return SyntheticStudy(tmp_path / "studies" / "apn_demo-20260801-120000")


def test_a_tracker_that_is_behind_does_not_pause(study, uri, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "ROUND_BYTES", 1)
    monkeypatch.setattr(mlflow_tracker, "PAUSE", 1e6)
    monkeypatch.setattr(mlflow_tracker, "LONGEST_ROUND_PAUSE_S", 60.0)
    study.begin()
    study.trials(2)
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    wait_until(lambda: len(runs_of(uri)[0]) == 3)
    assert tracker.close(60.0) == ()


def test_events_that_follow_a_round_share_the_next_one(study, uri, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "PAUSE", 1e6)
    monkeypatch.setattr(mlflow_tracker, "LONGEST_ROUND_PAUSE_S", 1.0)
    sizes = []
    write = MlflowTracker._write
    monkeypatch.setattr(
        MlflowTracker, "_write",
        lambda self, events, offset: sizes.append(len(events)) or write(self, events, offset),
    )  # fmt: skip
    study.begin()
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    grow(study, range(2), 1.0, pause_s=0.1)
    study.end()
    assert tracker.close(60.0) == ()
    assert sum(sizes) == len(read_events(study.log.path)) and len(sizes) <= 4
    assert_all_numbers(uri, study.directory)


def test_an_ended_search_waits_as_long_as_files_arrive(study, uri, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "LONGEST_ROUND_PAUSE_S", 0.5)
    begun = threading.Event()
    monkeypatch.setattr(Server, "upload", lambda self, artifact: begun.set() or time.sleep(0.6))
    study.whole()
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    assert begun.wait(HANG_S)  # all events are logged
    began = time.monotonic()
    assert tracker.close(3.0) == ()
    assert time.monotonic() - began > 3.5, "there were too few files to outlast the limit"
