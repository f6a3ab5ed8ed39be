"""MLflow holds what the events say: once each, after kills, and after the server was away."""

from __future__ import annotations

import json
import math
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow_numbers import assert_all_numbers, assert_runs_are_right
from mlflow_service import Service, fresh_database
from synthetic_study import SyntheticStudy
from tracked_study import runs_of, snapshot, track, wait_until

from ptal_ray.errors import TrackingError
from ptal_ray.space.space import load_space
from ptal_ray.study.event_types import FinalReport
from ptal_ray.study.events import dumps, read_events
from ptal_ray.study.view import StudyView
from ptal_ray.tracking import tracker as mlflow_tracker
from ptal_ray.tracking.runs import LONGEST, Round
from ptal_ray.tracking.tracker import MlflowTracker

NAME = "apn_demo-20260801-120000"


@pytest.fixture
def uri(tmp_path, monkeypatch):
    """A database of its own; the working directory is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(fresh_database())
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def study(tmp_path):
    return SyntheticStudy(tmp_path / "studies" / NAME)


def check_equal(uri, directory):
    """Every number of the events is in MLflow, exactly and once, in runs that are right."""
    runs, client = runs_of(uri)
    assert_all_numbers(uri, directory)
    assert_runs_are_right(uri, directory)
    view = StudyView.read(directory)
    for trial in view.trials:
        run = runs[f"trial/{trial.number}"]
        assert run.data.tags["state"] == trial.state
        assert run.info.start_time == round(trial.started * 1000)
        for name in ("train/loss_total", "train/loss_pem"):
            history = client.get_metric_history(run.info.run_id, name)
            curve = sorted((m.step, m.value, m.timestamp) for m in history)
            assert curve == [
                (r.step, r.metrics[name], round(r.time * 1000)) for r in trial.reports
            ], name
        decode = {k[7:]: v for k, v in run.data.params.items() if k.startswith("decode.")}
        assert decode == {k: dumps(v) for k, v in trial.reports[-1].decode.items()}
    return runs, client


def test_a_whole_study_reaches_mlflow(study, uri, tmp_path):
    study.whole()
    assert track(study, None) == ()
    runs, client = check_equal(uri, study.directory)
    parent = runs["study"]
    assert parent.info.run_name == "120000 apn_demo"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["features"] == "real"
    assert parent.data.params["seed"] == "7"
    assert parent.data.params["train.lr"].startswith('{"loguniform": [0.0001, 0.1]')
    assert parent.data.params["train.batch_size"] == "4"
    assert parent.data.params["budget.max_steps"] == "90"
    assert parent.data.params["data_hash"] == "0" * 64
    assert parent.data.tags["version.torch"] == "2.13.0"
    assert parent.data.tags["hardware.cpu"] == "Test CPU @ 2 GHz"
    assert parent.data.tags["git_commit"] == "f" * 40
    assert "Made up for a test." in parent.data.tags["mlflow.note.content"]
    for run in runs.values():
        assert run.data.tags["features"] == "real"
    best = runs["test/best"].data
    assert best.metrics["test/mAP_avg"] == parent.data.metrics["test/mAP_avg"]
    assert best.params["decode.nms_tiou"] == "0.45"
    kept = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert kept == {"study.json", "best.yaml"}
    path = client.download_artifacts(parent.info.run_id, "best.yaml", str(tmp_path))
    assert load_space(path).train_fixed["lr"] == 0.01
    seed = runs["test/best/seed1"].info.run_id
    path = client.download_artifacts(seed, "detections.json", str(tmp_path))
    written = study.directory / "final/best_seed1/detections.json"
    assert Path(path).read_bytes() == written.read_bytes()
    state = json.loads((study.directory / "mlflow_state.json").read_text())
    assert state["offset"] == study.log.path.stat().st_size
    assert state["runs"] == {key: run.info.run_id for key, run in runs.items()}
    assert not list(tmp_path.rglob(".*.json.*"))


def test_the_log_is_followed_while_it_grows(study, uri, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "POLL_S", 0.02)
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    study.begin()
    study.trials(3)
    deadline = time.monotonic() + 60
    while len(runs := logged_runs(uri)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(runs) == {"study", "trial/0", "trial/1", "trial/2"}
    study.finals()
    study.end()
    tracker.attach(study.directory / "final")
    assert tracker.close(60) == ()
    _, client = check_equal(uri, study.directory)
    report = client.list_artifacts(runs["study"].info.run_id, "report")
    assert len(report) == 12


def logged_runs(uri):
    try:
        return runs_of(uri)[0]
    except AttributeError:  # the experiment is not made yet
        return {}


def test_a_killed_driver_neither_repeats_nor_loses(study, uri):
    """The state is as old as can be: nothing of what was written is remembered."""
    study.begin()
    study.trials(4)
    quality = study.start(4)
    study.report(4, 10, quality)
    assert track(study, uri) == ()
    state = study.directory / "mlflow_state.json"
    early = state.read_text()
    study.report(4, 30, quality)
    assert track(study, uri) == ()
    for saved in (early, None, "{damaged"):
        state.write_text(saved) if saved else state.unlink()
        assert track(study, uri) == ()
    study.begin()  # resumed: the study event again, the interrupted trial again
    study.start(4, from_step=0)
    for step in (10, 30, 90):
        study.report(4, step, quality)
    study.append("trial_end", trial=4, state="complete", message="")
    study.finals()
    study.end()
    assert track(study, uri) == ()
    runs, client = runs_of(uri)
    trial = runs["trial/4"]
    found = {
        name: sorted(m.step for m in client.get_metric_history(trial.info.run_id, name))
        for name in ("objective_last", "objective", "train/loss_total")
    }
    assert found == {
        "objective_last": [10, 30], "objective": [90], "train/loss_total": [10, 30, 90]
    }  # fmt: skip
    assert trial.info.status == runs["study"].info.status == "FINISHED"
    state.unlink()
    before = snapshot(uri)
    assert track(study, uri) == ()
    assert snapshot(uri) == before


def test_an_interrupted_study_is_marked_and_goes_on_in_the_same_runs(study, uri):
    study.begin()
    study.trial(0)
    study.start(1)
    study.end("interrupted")
    assert track(study, uri) == ()
    runs, _ = runs_of(uri)
    assert runs["study"].info.status == runs["trial/1"].info.status == "KILLED"
    assert runs["trial/1"].data.tags["state"] == "interrupted"
    study.begin()
    quality = study.start(1)
    assert track(study, uri) == ()
    again, _ = runs_of(uri)
    assert again["study"].info.status == again["trial/1"].info.status == "RUNNING"
    assert again["study"].info.run_id == runs["study"].info.run_id
    for step in (10, 30, 90):
        study.report(1, step, quality)
    study.append("trial_end", trial=1, state="complete", message="")
    study.finals()
    study.end()
    assert track(study, uri) == ()
    check_equal(uri, study.directory)


def test_numbers_that_are_not_finite_and_odd_names(study, uri):
    study.begin()
    study.start(0)
    metrics = {"val/mAP_avg": math.nan, "train/loss_x": math.inf, "val/mAP@0.5 (odd)": 0.25}
    study.append("report", trial=0, step=10, objective=math.nan, metrics=metrics,
                 decode={"nms_kind": "y" * 700}, seconds=1.0, to_first_step_s=None)  # fmt: skip
    study.append("trial_end", trial=0, state="failed", message="m" * 9000)
    study.append("final_report", arm="best", role="test", seed=0, params={}, decode={}, step=90,
                 metrics={}, detections="", message="diverged")  # fmt: skip
    study.end()
    assert track(study, uri) == ()
    runs, _ = runs_of(uri)
    logged = runs["trial/0"].data.metrics
    assert math.isnan(logged["objective_last"])
    assert logged["train/loss_x"] > 1e300
    assert logged["val/mAP_0.5 _odd_"] == 0.25
    assert len(runs["trial/0"].data.tags["message"]) == LONGEST
    assert runs["trial/0"].data.params["decode.nms_kind"].endswith("events.jsonl)")
    assert runs["test/best/seed0"].info.status == runs["test/best"].info.status == "FAILED"


def test_a_dataset_that_another_study_creates_meanwhile_is_logged(study, uri, monkeypatch):
    real, times = MlflowClient.log_inputs, []

    def declined_once(self, *args, **named):
        times.append(args)
        if len(times) == 1:
            raise MlflowException("(psycopg.errors.UniqueViolation) dataset_pk", BAD_REQUEST)
        return real(self, *args, **named)

    monkeypatch.setattr(MlflowClient, "log_inputs", declined_once)
    study.whole()
    assert track(study, uri) == ()
    runs, _ = check_equal(uri, study.directory)
    assert [i.dataset.name for i in runs["study"].inputs.dataset_inputs] == ["demo"]


def test_what_mlflow_declines_is_named_and_stops_nothing(study, uri):
    study.begin()
    study.trial(0)
    assert track(study, uri) == ()
    runs, client = runs_of(uri)
    client.delete_run(runs["trial/0"].info.run_id)
    client.log_param(runs["study"].info.run_id, "extra", "1")
    study.append("final_report", arm="best", role="test", seed=0, params={"lr": 1.0}, decode={},
                 step=90, metrics={"test/mAP_avg": 0.5}, detections="gone.json")  # fmt: skip
    (message,) = track(study, uri)
    assert "declined" in message and "gone.json" in message
    assert runs_of(uri)[0]["test/best/seed0"].data.metrics == {"test/mAP_avg": 0.5}


def test_what_is_written_just_before_the_end_is_logged(study, uri):
    """The tracker is told to end after it looked at the log and before it has gone to rest."""
    tracker = MlflowTracker(study.directory, uri)
    look = tracker._round

    def look_then_end():
        busy = look()
        if not study.log.path.exists():
            study.whole(1)
            tracker._patience_s = 60.0  # as `close`
            tracker._stop_at = time.monotonic() + 60
            tracker._wake.set()
        return busy

    tracker._round = look_then_end
    tracker.start()
    tracker._thread.join(60)
    assert tracker.close(0.0) == ()
    check_equal(uri, study.directory)


def test_only_one_process_logs_a_study(study, uri):
    study.begin()
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    with pytest.raises(TrackingError, match="another process"):
        MlflowTracker(study.directory, uri).start()
    assert tracker.close(60) == ()
    assert track(study, uri) == ()


@pytest.mark.parametrize(
    "address, reason",
    [
        ("http://127.0.0.1:{port}", "refused"),
        ("http://user:secret@127.0.0.1:{port}", "refused"),
        ("postgresql+psycopg2://user:secret@127.0.0.1:{port}/runs", "refused"),
        ("http://127.0.0.1:{silent}", "timed out"),
        ("http://user:sec/secret@127.0.0.1:{port}", "is written %40"),
        ("postgresql://user:sec@secret@127.0.0.1:{port}/runs", "is written %40"),
        ("postgresql://user:secret@127.0.0.1:port/runs", "scheme://user"),
        ("sqlite:////nowhere/at/all/mlflow.db", "does not exist"),
        ("sqlite:///{path}", "not a database"),
        ("file:///tmp/mlruns", "sqlite:///FILE"),
        ("./mlruns", "sqlite:///FILE"),
    ],
)
def test_an_unreachable_server_is_an_error_within_seconds(study, tmp_path, address, reason):
    (tmp_path / "text.db").write_text("this is no database at all, but a line of text" * 10)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(
            port=free.getsockname()[1], silent=silent.getsockname()[1], path=tmp_path / "text.db"
        )
        began = time.monotonic()
        with pytest.raises(TrackingError, match=reason) as caught:
            MlflowTracker(study.directory, address).start()
        assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_one_round_per_run_however_many_events(study):
    """Hundreds of trials cost three requests each, not one per report."""
    study.begin()
    study.trials(100)
    work = Round(StudyView(), read_events(study.log.path), study.directory)
    assert len(work.updates) == 101
    assert sum(len(u.metrics) for u in work.updates.values()) > 900


def test_the_trials_of_the_recommended_configuration_are_marked(study):
    """The highest single objective of a race is not what it recommends."""
    study.begin()
    study.trials(4)
    arm = {"arm": 2, "trial": 2, "params": {}, "cells": 3, "mean": 0.41, "sd": 0.02, "state": ""}
    study.append(
        "recommended", arm=2, trial=2, params={}, decode={}, verdict="better",
        difference={"mean": 0.1, "low": 0.05, "high": 0.15, "cells": 8}, arms=(arm,),
    )  # fmt: skip
    updates = Round(StudyView(), read_events(study.log.path), study.directory).updates
    marked = {key for key, run in updates.items() if run.tags.get("recommended") == "true"}
    assert marked == {"trial/2"}
    assert updates["trial/2"].metrics["posterior_mean", 0][0] == 0.41
    earlier = StudyView.read(study.directory)
    again = replace(earlier.recommended, arm=3, trial=3, arms=(arm | {"arm": 3, "trial": 3},))
    later = Round(earlier, [again], study.directory).updates
    assert {k: run.tags["recommended"] for k, run in later.items()} == {
        "trial/2": "false", "trial/3": "true",
    }  # fmt: skip


def test_the_run_of_a_seed_is_named_by_its_real_seed(study):
    study.begin()
    study.final("test", "best", 0, 0.5)
    events = [replace(e, run_seed=7) if isinstance(e, FinalReport) else e
              for e in read_events(study.log.path)]  # fmt: skip
    run = Round(StudyView(), events, study.directory).updates["test/best/seed0"]
    assert (run.name, run.params["seed"]) == ("seed 7 of test best", "7")


@pytest.fixture
def service(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(fresh_database())
    service = Service(tmp_path)
    service.start()
    yield service
    service.stop()


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(study, service, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", service.uri)
    monkeypatch.setattr(mlflow_tracker, "LONGEST_ROUND_PAUSE_S", 0.5)
    study.begin()
    study.trials(3)
    tracker = MlflowTracker(study.directory)
    tracker.start()
    wait_until(lambda: len(logged_runs(service.uri)) == 4)
    service.stop()
    began = time.monotonic()
    for number in range(3, 8):
        study.trial(number, "pruned")
    assert time.monotonic() - began < 5, "the search waits for the server"
    wait_until(lambda: "the search continues" in caplog.text)
    (message,) = tracker.close(1.0)
    events = len(read_events(study.log.path))
    assert f"of {events} events" in message
    assert message.startswith(f"MLflow at {service.uri}")
    assert f"python -m ptal_ray.report --log {study.directory}" in message
    service.start()
    tracker = MlflowTracker(study.directory)
    tracker.start()
    wait_until(lambda: len(logged_runs(service.uri)) == 9)
    service.stop()
    study.finals()
    study.end()
    service.start()
    assert tracker.close(60) == ()
    check_equal(service.uri, study.directory)
    assert capfd.readouterr().out == ""


def test_the_best_yaml_of_a_report_replaces_that_of_the_events(study, uri, tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    (report / "best.yaml").write_text("with: an ensemble\n")
    tracker = MlflowTracker(study.directory, uri)
    tracker.attach(report)  # also where it comes before the events
    study.whole()
    tracker.start()
    assert tracker.close(60.0) == ()
    runs, client = runs_of(uri)
    (tmp_path / "there").mkdir()
    for name in ("best.yaml", "report/best.yaml"):
        path = client.download_artifacts(runs["study"].info.run_id, name, str(tmp_path / "there"))
        assert Path(path).read_text() == "with: an ensemble\n"
