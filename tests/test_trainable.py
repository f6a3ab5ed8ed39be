"""A job in the process that trains it: reports, files, errors, and nothing lost by a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptal_ray.backends.ray.trainable import TrialProcess
from ptal_ray.data.types import Scores
from ptal_ray.errors import DataError, DivergedError
from ptal_ray.study import job as jobs
from ptal_ray.study.event_types import FinalReport
from ptal_ray.study.job import STANDBY, Job, JobRun, diverged_event
from ptal_ray.study.results import Failed, Reported
from ptal_ray.study.run_folder import CHECKPOINT, MODEL, REPORT
from ptal_ray.training.config import TrialConfig, TrialReport

CONFIG = TrialConfig(
    method="toy", store="nowhere", train={"lr": 0.1}, decode={}, decode_domains={},
    decode_settings=1, cross_fit=False, seed=0, report_steps=(10, 30),
)  # fmt: skip


class FakeTrial:
    """Counts; its objective is its step, and it diverges or breaks where told."""

    breaks: dict[int, Exception] = {}
    made = 0

    def __init__(self, config: TrialConfig, device: str, rank: int, world_size: int) -> None:
        type(self).made += 1
        self.config, self.step, self.first_step_at = config, 0, None
        self.scores = [Scores(id="v", arrays={"a": np.zeros(2)})]
        self.detections: dict[str, Any] = {}

    @property
    def done(self) -> bool:
        return self.step >= self.config.report_steps[-1]

    def advance(self) -> TrialReport:
        self.step = next(s for s in self.config.report_steps if s > self.step)
        self.first_step_at = 107.5
        if self.step in self.breaks:
            raise self.breaks[self.step]
        return TrialReport(
            step=self.step, objective=self.step / 100, metrics={"val/mAP_avg": self.step / 100},
            decode={}, seconds=1.0,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        path.write_text(str(self.step))

    def save_model(self, path: Path, decode: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(decode))

    def load(self, path: Path) -> None:
        self.step = int(path.read_text())


def step(run: JobRun) -> int:
    """Of its next report."""
    result = run.advance()
    assert isinstance(result, Reported)
    return result.step


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeTrial]:
    monkeypatch.setattr(jobs, "start", FakeTrial)
    monkeypatch.setattr(FakeTrial, "breaks", {})
    monkeypatch.setattr(FakeTrial, "made", 0)
    return FakeTrial


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(config=CONFIG, directory=str(tmp_path), folder="trials/00003", asked_at=107.0)


def test_a_job_survives_json(job: Job) -> None:
    assert Job.from_json(job.to_json()) == job
    final = Job(**vars(job) | {"role": "test", "arm": "best", "repeat": 1})
    assert Job.from_json(final.to_json()) == final
    assert final.deployable and not job.deployable


def test_reports_come_one_by_one_and_are_saved(job: Job) -> None:
    run = JobRun(job, "cpu")
    first, last = run.advance(), run.advance()
    assert isinstance(first, Reported) and isinstance(last, Reported)
    assert (first.step, first.done) == (10, False)
    assert (last.step, last.done, last.objective) == (30, True, 0.3)
    assert first.to_first_step_s == 0.5
    assert {p.name for p in job.path.iterdir()} == {CHECKPOINT, REPORT, "scores.npz"}
    assert job.files.report() == last


def test_only_the_first_worker_writes(job: Job) -> None:
    JobRun(job, "cpu", rank=1, world_size=2).advance()
    assert not job.path.exists()


def test_it_goes_on_from_its_checkpoint(job: Job) -> None:
    JobRun(job, "cpu").advance()
    (job.path / ".checkpoint.pt.77").write_text("half")
    again = JobRun(Job(**vars(job) | {"reported_step": 10}), "cpu")
    assert step(again) == 30
    assert not list(job.path.glob(".*"))


def test_a_report_that_was_not_received_is_sent_again(job: Job) -> None:
    run = JobRun(job, "cpu")
    first, last = run.advance(), run.advance()
    assert JobRun(job, "cpu").advance() == last  # 30 lies on disk, none was received
    (job.path / CHECKPOINT).write_text("10")  # killed between the report and the checkpoint of 30
    again = JobRun(Job(**vars(job) | {"reported_step": 10}), "cpu")
    assert again.advance() == last
    (job.path / CHECKPOINT).write_text("10")
    (job.path / REPORT).write_text(json.dumps(first.plain()))
    again = JobRun(job, "cpu")
    assert [step(again), step(again)] == [10, 30]


def test_a_finished_run_whose_end_was_not_logged_ends_again(job: Job) -> None:
    run = JobRun(job, "cpu")
    run.advance()
    last = run.advance()
    again = JobRun(Job(**vars(job) | {"reported_step": 30}), "cpu")
    assert again.advance() == last


def test_a_checkpoint_without_its_report_is_not_used(job: Job) -> None:
    job.path.mkdir(parents=True)
    (job.path / CHECKPOINT).write_text("30")
    assert step(JobRun(job, "cpu")) == 10


def test_errors_that_would_repeat_end_the_job(job: Job, fake: type[FakeTrial]) -> None:
    fake.breaks = {10: DivergedError("loss is nan")}
    assert JobRun(job, "cpu").advance() == Failed(message="loss is nan")
    fake.breaks = {10: DataError("gone")}
    assert JobRun(job, "cpu").advance() == Failed(message="gone")
    fake.breaks = {10: OSError("the network blinked")}
    with pytest.raises(OSError, match="blinked"):
        JobRun(job, "cpu").advance()


def test_a_final_run_brings_its_event(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def event(run: Job, report: TrialReport, detections: Any) -> FinalReport:
        seen.append(run.arm)
        return diverged_event(run, f"step {report.step}")

    monkeypatch.setattr(jobs, "final_event", event)
    best = {"role": "test", "arm": "best", "repeat": 1, "folder": "final/best_seed1"}
    final = Job(**vars(job) | best)
    run = JobRun(final, "cpu")
    run.advance()
    last = run.advance()
    assert isinstance(last, Reported) and last.event and last.event.message == "step 30"
    assert final.files.report() == last
    assert seen == ["best"] * 2
    assert {p.name for p in final.path.iterdir()} == {CHECKPOINT, MODEL, REPORT}


def test_the_process_takes_one_job_after_the_other(job: Job, fake: type[FakeTrial]) -> None:
    process = TrialProcess.__new__(TrialProcess)  # without Tune's own files
    other = Job(**vars(job) | {"folder": "trials/00004"})
    process.setup({"job": job.to_json(), "device": "cpu", "threads": 1})
    assert fake.made == 0  # the trial is made in step(), where its time counts
    assert process.step()["step"] == 10
    assert process.reset_config({"job": other.to_json(), "device": "cpu", "threads": 1})
    assert process.step()["step"] == 10
    assert process.reset_config({"job": STANDBY, "device": "cpu", "threads": 1})
    assert process.step() == {"done": False, "failed": None, "standby": True}
    assert fake.made == 2


@pytest.mark.parametrize("threads", [1, 3])
def test_a_trial_computes_with_as_many_threads_as_it_has_cpus(threads: int) -> None:
    before = torch.get_num_threads()
    process = TrialProcess.__new__(TrialProcess)
    try:
        process.setup({"job": STANDBY, "device": "cpu", "threads": threads})
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
