"""MLflow on a user's machine: odd folders, moved ones, locked files, experiments of one's own."""

from __future__ import annotations

import shlex
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow_service import fresh_database
from synthetic_study import SyntheticStudy

from ptal_ray.errors import TrackingError
from ptal_ray.tracking import place as mlflow_place
from ptal_ray.tracking.reach import check
from ptal_ray.tracking.server import default_uri
from ptal_ray.tracking.tracker import MlflowTracker

NAME = "apn_demo-20260801-120000"
ODD = ["a b", "50%20", "a?b#c", "naïve-日本;$(x)"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forget()
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


def forget() -> None:
    """What MLflow keeps in a process, by addresses that mean another file in each folder."""
    if "mlflow" not in sys.modules:
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.registry import TrackingStoreRegistry
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    _artifact_repos_cache.clear()
    TrackingStoreRegistry._get_store_with_resolved_uri.cache_clear()
    SqlAlchemyStore._engine_map.clear()


def small_study(folder: Path, name: str = NAME) -> SyntheticStudy:
    study = SyntheticStudy(folder / name)
    study.time += len(list(folder.iterdir())) if folder.exists() else 0  # another log
    study.begin()
    study.trial(0)
    study.end()
    return study


def track(directory: Path, timeout_s: float = 60.0) -> tuple[str, ...]:
    tracker = MlflowTracker(directory)
    tracker.start()
    return tracker.close(timeout_s)


def experiments(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as tables:
        return dict(tables.execute("select name, artifact_location from experiments"))


def new_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path.mkdir()
    (path / "mlflow.db").write_bytes(fresh_database())
    monkeypatch.chdir(path)
    return path


def client():
    from mlflow import MlflowClient

    return MlflowClient(default_uri(None))


def experiment_id(name: str) -> str:
    return str(client().get_experiment_by_name(name).experiment_id)


def study_artifacts() -> list[list[str]]:
    """What lies with the run of each study, as MLflow finds it."""
    runs = client().search_runs([experiment_id("ptal/demo")], "tags.`ptal.run` = 'study'")
    return [[f.path for f in client().list_artifacts(run.info.run_id)] for run in runs]


@pytest.mark.parametrize("name", ODD)
def test_everything_lies_in_the_working_directory(tmp_path, monkeypatch, name):
    folder = new_folder(tmp_path / name, monkeypatch)
    study = small_study(folder / "studies")
    assert track(study.directory) == ()
    assert "ptal/demo" in experiments(folder / "mlflow.db")
    assert len(list((folder / "mlruns").rglob("study.json"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert study_artifacts() == [["best.yaml", "study.json"]]


@pytest.mark.parametrize("name", ["a?b", "a%20b"])
def test_no_address_names_a_folder_elsewhere_with_such_a_character(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PTAL_RESULTS", str(tmp_path / name))
    with pytest.raises(
        TrackingError, match=r"a database address cannot contain % or \?; start in "
    ):
        default_uri(None)


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("old", "5%20")])
def test_artifacts_follow_a_folder_that_was_moved(tmp_path, monkeypatch, caplog, before, after):
    old, new = tmp_path / before, tmp_path / after
    track(small_study(new_folder(old, monkeypatch) / "studies").directory)
    old.rename(new)
    monkeypatch.chdir(new)
    second = small_study(new / "studies", "apn_demo-20260802-120000")
    forget()
    assert track(second.directory) == ()
    assert track(new / "studies" / NAME) == ()
    assert not old.exists()
    assert len(list((new / "mlruns").rglob("study.json"))) == 2
    assert len([r for r in caplog.records if "its folder was moved" in r.getMessage()]) == 1
    assert study_artifacts() == [["best.yaml", "study.json"]] * 2


def test_artifacts_that_were_left_behind_are_said(tmp_path, monkeypatch, caplog):
    old, new = tmp_path / "old", tmp_path / "new"
    track(small_study(new_folder(old, monkeypatch) / "studies").directory)
    new.mkdir()
    (old / "mlflow.db").rename(new / "mlflow.db")
    (old / "mlruns").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(new)
    track(small_study(new / "studies", "apn_demo-20260802-120000").directory)
    assert f"go to {old}/mlruns/1, as its database says" in caplog.text


def test_a_deleted_experiment_is_said_at_the_start(tmp_path, monkeypatch):
    study = small_study(new_folder(tmp_path / "w", monkeypatch) / "studies")
    track(study.directory)
    client().delete_experiment(experiment_id("ptal/demo"))
    new = SyntheticStudy(tmp_path / "w" / "apn_demo-2")
    new.begin()
    new.log.path.unlink()  # a study that has not begun
    for directory in (study.directory, new.directory):
        with pytest.raises(TrackingError, match="'ptal/demo' is deleted; restore it with"):
            MlflowTracker(directory).start()


def test_an_experiment_deleted_later_is_not_tried_again(tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "w", monkeypatch)
    study = SyntheticStudy(folder / "studies" / NAME)
    tracker = MlflowTracker(study.directory)
    tracker.start()  # knows no dataset yet
    client().delete_experiment(client().create_experiment("ptal/demo"))
    study.begin()
    began = time.monotonic()
    (line,) = tracker.close(60)
    assert "is deleted; restore it" in line and "1 of 1 events" in line
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("uri", ["databricks", "databricks://profile", "databricks-uc"])
def test_databricks_is_left_to_mlflow(uri):
    check(uri)


@pytest.mark.parametrize(
    "uri", ["mysql+pymysql://me:pw@127.0.0.1/db", "mssql://127.0.0.1/db", "ftp://x", "file:///x"]
)
def test_what_runs_are_not_kept_at(uri):
    with pytest.raises(TrackingError, match="write sqlite:///FILE, postgresql://, http") as error:
        check(uri)
    assert "pw" not in str(error.value)


def test_a_locked_database_is_said(tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "w", monkeypatch)
    monkeypatch.setattr(mlflow_place, "LOCKED_WITHIN_S", 0.2)
    for kind in ("exclusive", "immediate"):
        with closing(sqlite3.connect(folder / "mlflow.db")) as other:
            other.execute(f"begin {kind}")
            with pytest.raises(
                TrackingError, match=r"another process has held the file for 0\.2 s"
            ):
                MlflowTracker(folder / NAME).start()


def test_a_lock_of_a_moment_is_waited_for(tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "w", monkeypatch)
    with closing(sqlite3.connect(folder / "mlflow.db", check_same_thread=False)) as other:
        other.execute("begin exclusive")
        threading.Timer(1.0, other.rollback).start()
        assert mlflow_place.database_problem(folder / "mlflow.db") == ""


def test_the_experiment_that_the_environment_names(tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "w", monkeypatch)
    study = small_study(folder / "studies")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert track(study.directory) == ()
    assert {"mine"} == set(experiments(folder / "mlflow.db")) - {"Default"}
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client().create_experiment("other"))
    assert track(study.directory) == ()
    assert len(client().search_runs([experiment_id("other")])) == 2
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with pytest.raises(TrackingError, match="is 'other' and MLFLOW_EXPERIMENT_NAME is 'mine'"):
        MlflowTracker(study.directory).start()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "777")
    with pytest.raises(TrackingError, match="MLFLOW_EXPERIMENT_ID 777: "):
        MlflowTracker(study.directory).start()


def test_the_command_that_logs_later_can_be_pasted(tmp_path, monkeypatch):
    folder = new_folder(tmp_path / "a b", monkeypatch)
    study = small_study(folder / "studies")
    (line,) = MlflowTracker(study.directory).close(0)
    command = line.partition("`")[2].rpartition("`")[0]
    assert shlex.split(command)[-1] == str(study.directory)
