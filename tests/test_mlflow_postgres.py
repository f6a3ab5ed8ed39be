"""MLflow on PostgreSQL, directly and behind a server: many studies, faults, secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HANG_S
from mlflow_numbers import assert_all_numbers, assert_runs_are_right, logged_runs
from mlflow_service import Service
from postgres_service import Postgres, running_postgres
from synthetic_study import SyntheticStudy
from tracked_study import grow, wait_until

from ptal_ray.errors import TrackingError
from ptal_ray.study.event_types import TrialStart
from ptal_ray.study.events import EventLog
from ptal_ray.tracking import tracker as mlflow_tracker
from ptal_ray.tracking.tracker import MlflowTracker

NAME = "apn_demo-20260801-12000"  # and a digit
AWAY_S = 12.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def service(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A tracking server on a database that was empty when it started."""
    service = Service(tmp_path_factory.mktemp("server"), postgres.fresh())
    service.start()
    yield service
    service.stop()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: MLflow's artifacts go there where there is no server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses short enough for a test."""
    monkeypatch.setattr(mlflow_tracker, "LONGEST_PAUSE_S", 0.3)
    monkeypatch.setattr(mlflow_tracker, "POLL_S", 0.05)
    monkeypatch.setattr(mlflow_tracker, "PAUSE", 1.0)  # or no request may meet a crash


def tracked_at_once(folder: Path, uri: str, count: int) -> list[Path]:
    """Studies that as many processes run and track from the same moment on."""
    root = Path(mlflow_tracker.__file__).parents[2]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    studies = [folder / f"{NAME}{k}" for k in range(count)]
    script = Path(__file__).with_name("tracked_study.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, study, str(1 - k / 20)], env=environment, cwd=folder,
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for k, study in enumerate(studies)
    ]  # fmt: skip
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, err
        assert json.loads(out) == [], err
        assert err == ""
    return studies


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("server", 3), ("database", 2)])
def test_studies_at_once_on_a_fresh_database(
    kind: str, count: int, postgres: Postgres, service: Service, place: Path
) -> None:
    """The server's database has no experiment yet, the other one not even tables."""
    database = service.backend if kind == "server" else postgres.fresh()
    studies = tracked_at_once(place, service.uri if kind == "server" else database, count)
    for study in studies:
        assert assert_all_numbers(database, study) > 100
        assert_runs_are_right(database, study)
    assert len({logged_runs(database, s)[0]["study"].info.experiment_id for s in studies}) == 1


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server", "database"])
def test_a_database_that_crashes_while_trackers_write(
    kind: str, postgres: Postgres, service: Service, place: Path, impatient: None,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    database = service.backend if kind == "server" else postgres.fresh()
    uri = service.uri if kind == "server" else database
    studies = [SyntheticStudy(place / kind / f"{NAME}{k}", features=kind) for k in (8, 9)]
    trackers = [MlflowTracker(study.directory, uri) for study in studies]
    for study, tracker in zip(studies, trackers, strict=True):
        tracker.start()
        study.begin()
    for crash in range(2):
        trials = range(10 * crash, 10 * crash + 10)
        for study in studies:
            grow(study, trials, 1.0, pause_s=0.01)
        postgres.restart()
    wait_until(lambda: "answers again" in caplog.text)
    for study, tracker in zip(studies, trackers, strict=True):
        study.finals()
        study.end()
        assert tracker.close(HANG_S) == ()
        assert_all_numbers(database, study.directory)
        assert_runs_are_right(database, study.directory)
    assert "the search continues, and events are kept in" in caplog.text
    assert postgres.password not in caplog.text
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


@pytest.mark.cluster
@pytest.mark.slow
def test_a_server_that_answers_too_late_makes_no_run_twice(
    postgres: Postgres, service: Service, place: Path, impatient: None,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Its database takes no new run for a while, then all that were asked for."""
    study = SyntheticStudy(place / f"{NAME}0", features="late")
    tracker = MlflowTracker(study.directory, service.uri)
    tracker.start()
    with postgres.connect(service.backend) as connection:
        connection.execute("lock table runs in share mode")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        study.begin()
        wait_until(lambda: "the search continues" in caplog.text)
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        wait_until(lambda: postgres.query(waiting)[0][0] > 1)  # runs that nobody waits for
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    grow(study, range(2), 1.0, pause_s=0.01)
    study.finals()
    study.end()
    assert tracker.close(HANG_S) == ()
    assert_all_numbers(service.backend, study.directory)
    assert_runs_are_right(service.backend, study.directory)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_server_that_is_away_for_a_while(
    service: Service, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the pauses that a user has: nothing is lost, nothing doubled, nobody waits."""
    study = SyntheticStudy(place / f"{NAME}0", features="away")
    tracker = MlflowTracker(study.directory, service.uri)
    tracker.start()
    study.begin()
    grow(study, range(3), 1.0, pause_s=0.1)
    wait_until(lambda: len(logged_runs(service.uri, study.directory)[0]) == 4)
    service.stop()
    began = time.monotonic()
    grow(study, range(3, 8), 1.0, pause_s=0.1)
    left = AWAY_S - (time.monotonic() - began)
    assert left > 0, "the search waits for the server"
    time.sleep(left)
    service.start()
    study.finals()
    study.end()
    wait_until(lambda: "answers again" in caplog.text)
    assert tracker.close(HANG_S) == ()
    assert_all_numbers(service.backend, study.directory)
    assert_runs_are_right(service.backend, study.directory)
    gone, back = (record.message for record in caplog.records)
    assert re.fullmatch(
        f"MLflow at {service.uri}: .*([Cc]onnection|closed).*; the search continues, and "
        f"events are kept in {study.log.path}", gone,
    )  # fmt: skip
    assert back == f"MLflow at {service.uri} answers again"


def test_a_wrong_password_is_told_at_once_and_not_shown(postgres: Postgres, place: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TrackingError, match="password authentication failed") as caught:
        MlflowTracker(place / NAME, postgres.uri(password="planted")).start()
    assert time.monotonic() - began < 10
    assert "planted" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_passwords_and_tokens_are_kept_nowhere(
    postgres: Postgres, place: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    secrets = {"MLFLOW_TRACKING_PASSWORD": "plantedword", "MLFLOW_TRACKING_TOKEN": "plantedtoken"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    uri = postgres.fresh()
    study = SyntheticStudy(place / NAME)
    study.whole(3)
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    assert tracker.close(HANG_S) == ()
    assert_all_numbers(uri, study.directory)
    (place / "report").mkdir()
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    postgres.stop()  # the event is refused, and the error told
    EventLog(study.directory / "events.jsonl").append(TrialStart(trial=3, params={}, from_step=0))
    tracker.attach(place / "report")
    (told,) = tracker.close(1.0)
    postgres.start()
    assert "PostgreSQL" not in told and f"127.0.0.1:{postgres.port}" in told
    written = [told, caplog.text, *capfd.readouterr(), *_texts(place), *_rows(postgres, uri)]
    assert any(NAME in text for text in written)
    for secret in (postgres.password, *secrets.values()):
        assert not [text[:200] for text in written if secret in text]


def _texts(folder: Path) -> Iterator[str]:
    """All files below a folder: the study's and MLflow's artifacts."""
    return (p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file())


def _rows(postgres: Postgres, uri: str) -> Iterator[str]:
    """Every row of every table of MLflow."""
    database = uri.rpartition("/")[2]
    tables = "select tablename from pg_tables where schemaname = 'public'"
    for (table,) in postgres.query(tables, database):
        for (row,) in postgres.query(f"select t::text from {table} t", database):
            yield str(row)
