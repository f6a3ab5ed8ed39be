"""A study without a shared file system: mirrored, resumed anywhere, kept small."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from conftest import HANG_S, make_store
from object_store import BUCKET, SECRET, ObjectStore
from small_study import begun, small_space
from test_conductor import Desk
from test_search_cli import gone, lay_out, started
from test_stages import key, scores
from test_trainable import CONFIG, FakeTrial

from ptal_ray.backends.ray.trainable import TrialProcess
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, StorageError
from ptal_ray.storage.folder import Folder
from ptal_ray.study import job as jobs
from ptal_ray.study import mirror
from ptal_ray.study.event_types import FinalReport, Report, TrialEnd, TrialStart
from ptal_ray.study.events import EventLog, parse_events, read_events
from ptal_ray.study.job import STANDBY, Job, JobRun
from ptal_ray.study.mirror import Mirror, check_out
from ptal_ray.study.retention import Retention
from ptal_ray.study.run_folder import CHECKPOINT, REPORT, SCORES
from ptal_ray.study.study import Study, create_study, latest_study, read_study
from ptal_ray.study.view import StudyView
from ptal_ray.training.stage_cache import entry, stage_result
from ptal_ray.training.worker import Worker

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def study(shelf: Folder, tmp_path: Path) -> Study:
    """A fresh study whose storage is an address."""
    store = FeatureStore.open(make_store(tmp_path / "tiny", train=9))
    return begun(create_study(small_space(), store, shelf))


@pytest.fixture
def job(shelf: Folder, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that counts instead of training, of a study at an address."""
    monkeypatch.setattr(jobs, "start", FakeTrial)
    return Job(
        config=CONFIG, directory="/nowhere", folder="trials/00003", asked_at=107.0,
        remote=str(shelf / "study"),
    )  # fmt: skip


def test_a_run_goes_on_elsewhere(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = JobRun(job, "cpu").advance()
    assert sorted(job.files.place.names()) == [CHECKPOINT, REPORT]
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    assert JobRun(job, "cpu").advance() == first  # the driver did not receive it
    known = dataclasses.replace(job, reported_step=10)
    last = JobRun(known, "cpu").advance()
    assert (last.step, last.done) == (30, True)
    assert sorted(job.files.place.names()) == [CHECKPOINT, REPORT, SCORES]
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "here"))  # which has the checkpoint of 10
    assert JobRun(known, "cpu").advance() == last


def test_a_later_checkpoint_of_this_machine_is_sent(job: Job, tmp_path: Path) -> None:
    JobRun(job, "cpu").advance()
    report = json.loads((job.path / REPORT).read_text())
    (job.path / REPORT).write_text(json.dumps(report | {"step": 30}))
    (job.path / CHECKPOINT).write_text("30")  # killed before it was sent
    again = JobRun(dataclasses.replace(job, reported_step=10), "cpu").advance()
    assert again.step == 30
    assert (job.files.place / CHECKPOINT).read() == b"30"
    (job.files.place / CHECKPOINT).remove()
    shutil.rmtree(job.path)
    assert not job.files.has_checkpoint()  # a report alone is none
    assert JobRun(job, "cpu").advance().step == 10


def test_a_machine_keeps_nothing_heavy_of_a_run_that_it_left(job: Job) -> None:
    process = TrialProcess.__new__(TrialProcess)  # without Ray
    process.setup({"job": job.to_json(), "device": "cpu", "threads": 1})
    while not process.step()["done"]:
        assert (job.path / CHECKPOINT).exists()
    process.reset_config({"job": STANDBY, "device": "cpu"})
    assert [p.name for p in job.path.iterdir()] == [REPORT]
    assert sorted(job.files.place.names()) == [CHECKPOINT, REPORT, SCORES]


def test_all_files_of_a_run_that_could_not_be_sent_are_sent_later(job: Job) -> None:
    run = JobRun(job, "cpu")
    while not run.advance().done:
        pass
    for name in (SCORES, CHECKPOINT):
        (job.files.place / name).remove()
    JobRun(job, "cpu").advance()
    assert sorted(job.files.place.names()) == [CHECKPOINT, REPORT, SCORES]


def test_detections_are_sent_before_the_event(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id)
    desk.take("e")
    job = desk.jobs["e"]
    assert (job.remote, job.data_hash) == (study.remote, study.data_hash)
    monkeypatch.setattr(jobs, "start", FakeTrial)
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    run = JobRun(dataclasses.replace(job, config=dataclasses.replace(
        CONFIG, store=job.config.store)), "cpu")  # fmt: skip
    run.advance()
    result = run.advance()
    assert not (study.directory / result.event.detections).exists()
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "here"))
    desk.conductor.ended("e", result)
    assert (study.directory / desk.events[-1].detections).exists()


def test_a_job_without_its_data_fails_in_one_line(job: Job, tmp_path: Path) -> None:
    lost = dataclasses.replace(job, source="s3://shelf/none/tiny", data_hash="0" * 64)
    failed = JobRun(lost, "cpu").advance().message
    assert failed.startswith(f"on {socket.gethostname()}: s3://shelf/none/tiny")
    assert "\n" not in failed


def test_the_drivers_files_are_mirrored_and_brought_back(
    study: Study, shelf: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PAUSE_S", 0.05)
    remote = Folder.parse(study.remote)
    mirrored = Mirror(study)
    mirrored.start()
    log = EventLog(study.events)
    (study.directory / "mlflow_state.json").write_text("{}")
    (study.directory / "final" / "best_seed0").mkdir(parents=True)
    (remote / "final/best_seed0/detections.json").write(b"[]")
    until = time.time() + 20
    while len(remote.names()) < 5 and time.time() < until:
        time.sleep(0.05)
    assert json.loads((remote / mirror.DRIVER).read() or b"")["pid"] == os.getpid()
    log.append(TrialStart(trial=0, params={}, from_step=0))
    assert mirrored.close() == ""
    assert (remote / "events.jsonl").read() == study.events.read_bytes()
    assert (remote / mirror.DRIVER).read() is None
    assert latest_study(shelf, "small") == study.name

    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    found = check_out(remote)
    assert found.is_relative_to(tmp_path / "elsewhere")
    assert read_study(found, study.remote) == dataclasses.replace(study, directory=found)
    assert (found / "final/best_seed0/detections.json").exists()
    assert sorted(p.name for p in found.iterdir()) == [
        "events.jsonl", "final", "mlflow_state.json", "study.json"
    ]  # fmt: skip
    EventLog(found / "events.jsonl").append(TrialEnd(trial=0, state="failed", message=""))
    ahead = (found / "events.jsonl").read_bytes()
    assert check_out(remote) == found
    assert (found / "events.jsonl").read_bytes() == ahead  # what a killed driver did not send
    log.append(TrialEnd(trial=0, state="pruned", message=""))
    (remote / "events.jsonl").write(study.events.read_bytes())
    with pytest.raises(ConfigError, match="was continued both there and in .*; remove"):
        check_out(remote)
    with pytest.raises(ConfigError, match="there is no study"):
        check_out(shelf / "none")


def test_one_driver_at_a_time(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PAUSE_S", 0.05), ("BEAT_S", 0.1), ("SILENCE_S", 3.0)):
        monkeypatch.setattr(mirror, name, value)
    first, driver = Mirror(study), Folder.parse(study.remote) / mirror.DRIVER
    first.start()
    host = socket.gethostname()
    with pytest.raises(ConfigError, match=f"another process runs this .*{os.getpid()} on {host}"):
        Mirror(study).start()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    with pytest.raises(ConfigError, match="another process runs this study"):
        Mirror(study).start()
    assert first.close() == ""
    driver.write(json.dumps({"host": "dead-machine", "pid": 1}).encode())
    second = Mirror(study)
    second.start()
    driver.write(json.dumps({"host": "thief", "pid": 7}).encode())
    until = time.time() + 20
    while not second.lost and time.time() < until:
        time.sleep(0.05)
    second._thread.join(5)  # it has nothing more to do
    assert "another driver now runs this study: process 7 on thief" in second.close()
    assert driver.read() == b'{"host": "thief", "pid": 7}'


def test_a_storage_that_is_away_is_told_at_the_end(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = Mirror(study)
    mirrored.start()

    def fails(self: Folder, data: bytes) -> None:
        raise StorageError("no connection")

    monkeypatch.setattr(Folder, "write", fails)
    study.events.write_bytes(study.events.read_bytes() + b"x")
    found = mirrored.close()
    assert f"not all of the study was uploaded to {study.remote} (no connection)" in found
    assert f"--resume {study.remote} on this machine uploads it" in found


def test_stages_are_shared_at_the_address(
    shelf: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "tiny", train=8)
    where = key(store, str(shelf / ".stages"))
    stage_result(where, lambda: scores(3), Worker())
    first = entry(where)
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    again = stage_result(where, lambda: scores(4), Worker())
    assert again.weights["w"].tolist() == [3, 3]
    assert again.scores[1].arrays["score"].tolist() == [3, 3, 3]
    assert first != entry(where)


def checkpoints(study: Study) -> list[int]:
    return sorted(int(p.parent.name) for p in study.directory.glob(f"trials/*/{CHECKPOINT}"))


def test_the_best_checkpoints_are_kept(study: Study) -> None:
    desk, remote = Desk(study), Folder.parse(study.remote) / "trials"
    desk.take(*"abcd")

    def trained(id: str, objective: float, step: int = 40) -> None:
        files = desk.jobs[id].files
        files.path.mkdir(parents=True)
        (files.path / REPORT).write_text('{"step": 40}')
        (files.path / CHECKPOINT).write_text("")
        files.send(REPORT, CHECKPOINT)
        desk.end(id, step, objective)

    trained("a", 0.3)
    trained("b", math.nan)
    trained("c", 0.2)
    assert checkpoints(study) == [0, 2]  # final.top is 2
    trained("d", 0.25)
    assert checkpoints(study) == [0, 3]
    assert sorted(n for n in remote.names() if CHECKPOINT in n) == [
        f"00000/{CHECKPOINT}", f"00003/{CHECKPOINT}"
    ]  # fmt: skip
    view = StudyView.read(study.directory)
    Retention(dataclasses.replace(study, keep_checkpoints=1), view)  # as a resumed study does
    assert checkpoints(study) == [0]
    assert sorted(n for n in remote.names()) == [f"00000/{CHECKPOINT}", f"00000/{REPORT}"]


def wait_until_one_ended_and_one_runs(studies: Folder, search: Popen[str]) -> str:
    """Returns once the mirrored events say so; the name of the study."""
    until = time.time() + HANG_S
    while time.time() < until:
        for name in studies.names(below=False):
            text = (studies / name / "events.jsonl").read() or b""
            events = parse_events(text.splitlines(), Path(name))
            reported = {e.trial for e in events if isinstance(e, Report)}
            ended = {e.trial for e in events if isinstance(e, TrialEnd)}
            if ended and reported - ended:
                return name
        assert search.poll() is None, search.communicate()
        time.sleep(0.2)
    raise AssertionError("the study did not get there in time")


@pytest.fixture(scope="module")
def moved(
    server: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A study at an address, killed with -9 and finished by a machine that has nothing of it."""
    folder = tmp_path_factory.mktemp("moved")
    shelf = Folder.parse(f"s3://{BUCKET}/moved")
    overrides = ("budget.max_steps=800", "final.seeds=1", "final.top=1", "budget.trials=2")
    store = make_store(folder / "tiny", train=9)
    lay_out(folder, Path("tiny"), *overrides)
    for file in store.iterdir():
        (shelf / "data" / "tiny" / file.name).push(file)
    shutil.rmtree(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTAL_DATA", str(shelf / "data"))
        patch.setenv("PTAL_CACHE", str(folder / "one"))
        # One trial at a time, and each to its end: the second is long enough to be seen running.
        words = ("--scheduler", "none", "--max-concurrent", "1")
        first = started(folder, "small.yaml", "--storage", str(shelf / "studies"), *words)

        try:
            name = wait_until_one_ended_and_one_runs(shelf / "studies", first)
        finally:
            first.kill()
            first.communicate()
        clean = gone(folder)
        killed = (shelf / "studies" / name / "events.jsonl").read() or b""
        patch.setenv("PTAL_CACHE", str(folder / "two"))
        second = started(folder, "--resume", str(shelf / "studies" / name), "--json")
        printed, said = second.communicate(timeout=HANG_S)
    yield {
        "folder": folder, "remote": shelf / "studies" / name, "clean": clean, "killed": killed,
        "printed": printed, "said": said, "code": second.returncode,
    }  # fmt: skip


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_search_is_finished_by_another_machine(moved: dict[str, Any]) -> None:
    assert moved["clean"]
    assert moved["code"] == 0, moved["said"]
    outcome = json.loads(moved["printed"])
    assert (outcome["state"], outcome["trials"]["running"]) == ("done", 0)
    assert outcome["storage"] == str(moved["remote"])
    text = (moved["remote"] / "events.jsonl").read() or b""
    assert text == (Path(outcome["directory"]) / "events.jsonl").read_bytes()
    whole = moved["killed"][: moved["killed"].rfind(b"\n") + 1]
    assert whole.count(b"trial_end") >= 1
    assert text.startswith(whole)
    events = parse_events(text.splitlines(), Path("events.jsonl"))
    ends = [e.trial for e in events if isinstance(e, TrialEnd)]
    assert sorted(ends) == [0, 1]
    seen = {(e.trial, e.step, e.objective) for e in events if isinstance(e, Report)}
    assert len(seen) == len({pair[:2] for pair in seen})  # what was done again gave the same
    again = [e for e in events[whole.count(b"\n") :] if isinstance(e, TrialStart)]
    assert any(e.from_step > 0 for e in again)  # its checkpoint came along
    assert "default" in {e.arm for e in events if isinstance(e, FinalReport)}


@pytest.mark.cluster
@pytest.mark.slow
def test_everything_of_it_lies_at_the_address(moved: dict[str, Any]) -> None:
    names = moved["remote"].names()
    assert {"study.json", "events.jsonl", "optuna.journal", "mlflow_state.json"} <= set(names)
    assert mirror.DRIVER not in names
    kept = [n for n in names if n.startswith("trials/") and n.endswith(CHECKPOINT)]
    assert len(kept) == 1  # final.top
    outcome = json.loads(moved["printed"])
    assert f"--resume {moved['remote']}" not in moved["said"]
    for event in read_events(Path(outcome["directory"]) / "events.jsonl"):
        if isinstance(event, FinalReport):
            assert event.detections in names
            assert (Path(outcome["directory"]) / event.detections).exists()
    for number in (0, 1):  # for the report; the first was trained on the machine that is gone
        assert (Path(outcome["directory"]) / f"trials/{number:05d}" / SCORES).exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_secrets_are_written_nowhere(moved: dict[str, Any]) -> None:
    files = [p for p in moved["folder"].rglob("*") if p.is_file()]
    assert any(p.name == "mlflow.db" for p in files)
    found = [p for p in files if SECRET.encode() in p.read_bytes()]
    assert not found
    assert SECRET not in moved["said"] + moved["printed"]
