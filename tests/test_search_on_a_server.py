"""Whole searches that log to a tracking server on PostgreSQL, also while both go away."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_S, make_store
from mlflow_numbers import assert_all_numbers, assert_runs_are_right, logged_runs
from mlflow_service import Service
from postgres_service import Postgres, running_postgres
from test_search_cli import lay_out, left_over, started

from ptal_ray.study.event_types import Report
from ptal_ray.study.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
TOKEN = "plantedtoken"
Begun = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture
def service(postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    folder = tmp_path / "server"
    folder.mkdir()
    service = Service(folder, postgres.fresh())
    service.start()
    yield service
    service.stop()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a search space small.yaml; a token is set."""
    overrides = ("budget.max_steps=80", "final.seeds=2", "final.top=1", "budget.trials=3")
    lay_out(tmp_path, make_store(tmp_path / "tiny", train=9), *overrides)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    return tmp_path


@pytest.fixture
def begun(folder: Path, service: Service) -> Iterator[Begun]:
    """Starts searches, which are all ended when the test is."""
    searches: list[subprocess.Popen[str]] = []

    def begin(*args: str) -> subprocess.Popen[str]:
        searches.append(started(folder, "small.yaml", "--json", *args, uri=service.uri))
        return searches[-1]

    yield begin
    for search in searches:
        with search:  # closes its pipes
            search.kill()
    for process in left_over(folder):
        process.kill()


def finished(search: subprocess.Popen[str], trials: int) -> dict[str, Any]:
    """The outcome of a search that ended well; nothing is missing, no secret was printed."""
    out, err = search.communicate(timeout=HANG_S)
    assert search.returncode == 0, err
    assert TOKEN not in out + err
    outcome: dict[str, Any] = json.loads(out)
    assert outcome["unlogged"] == []
    assert (outcome["state"], sum(outcome["trials"].values())) == ("done", trials)
    return outcome


def assert_logged(service: Service, folder: Path, outcome: dict[str, Any]) -> None:
    """MLflow has the numbers of the log, and those of the report."""
    directory = Path(outcome["directory"])
    assert_all_numbers(service.backend, directory)
    assert_runs_are_right(service.backend, directory)
    runs, client = logged_runs(service.uri, directory)
    for arm, metrics in outcome["test"].items():
        tested = runs.get(f"test/{arm}", runs["test/default"])  # the best may be the defaults
        logged = tested.data.metrics
        averages = {k: v for k, v in metrics.items() if k in logged}
        assert "test/mAP_avg" in averages
        for name, said in averages.items():
            assert logged[name] == pytest.approx(said["mean"], rel=1e-12)
            assert logged[f"{name}_sd"] == pytest.approx(said["sd"], rel=1e-12)
    report = {a.path for a in client.list_artifacts(runs["study"].info.run_id, "report")}
    assert {"report/REPORT.md", "report/result.json"} <= report
    for file in (*directory.rglob("*"), *(folder / outcome["report"]).rglob("*")):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


def test_two_searches_while_the_server_and_its_database_are_away(
    folder: Path, service: Service, postgres: Postgres, begun: Begun
) -> None:
    """Studies of the same second and of one experiment, which take longer than both are away."""
    trials = 20
    searches = [
        begun("--seed", seed, "--storage", f"studies{seed}", "--max-concurrent", "1",
              "--num-trials", str(trials))
        for seed in ("0", "1")
    ]  # fmt: skip
    logs = [wait_for_reports(folder / f"studies{seed}", 2) for seed in (0, 1)]
    service.stop()
    postgres.restart()
    for seed, log in enumerate(logs):
        reports = sum(isinstance(e, Report) for e in read_events(log))
        wait_for_reports(folder / f"studies{seed}", reports + 2)  # the search continues
    service.start()
    for search in searches:
        assert_logged(service, folder, finished(search, trials))


def wait_for_reports(studies: Path, count: int) -> Path:
    """The log of the study, once it holds so many reports."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        for log in studies.glob("*/events.jsonl"):
            if sum(isinstance(e, Report) for e in read_events(log)) >= count:
                return log
        time.sleep(0.1)
    raise AssertionError("the study did not get there in time")
