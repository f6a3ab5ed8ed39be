"""A study under Ray: what fits, where no cluster is, early stops, failures and a clean end."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import psutil
import pytest
import ray
from small_study import begun, small_study

from ptal_ray.backends.ray import runner
from ptal_ray.backends.ray.cluster import cluster, concurrency, local_nodes
from ptal_ray.backends.ray.runner import run_study
from ptal_ray.benchmarks.dummy import many_cpus
from ptal_ray.errors import ConfigError
from ptal_ray.policy.optuna_searcher import JOURNAL, open_journal
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.space.domain import Domain
from ptal_ray.space.space import Resources
from ptal_ray.study.event_types import Event, Report
from ptal_ray.study.events import read_events
from ptal_ray.study.run_folder import CHECKPOINT
from ptal_ray.study.start_end import locked_study
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return begun(small_study(tmp_path))


def test_what_fits() -> None:
    one = Resources()
    two = Resources(workers=2, cpus_per_worker=2)
    assert concurrency(one, [{"CPU": 2.0}, {"CPU": 3.0}], None) == 5
    assert concurrency(one, [{"CPU": 5.0}], 2) == 2
    assert concurrency(two, [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 3.0}], None) == 1
    share = Resources(gpus_per_worker=0.4)
    assert concurrency(share, [{"CPU": 16.0, "GPU": 2.0}], None) == 4
    assert concurrency(Resources(gpus_per_worker=2.0), [{"CPU": 16.0, "GPU": 5.0}], None) == 2
    with pytest.raises(ConfigError, match="2 workers x 2 CPUs and 0 GPUs, but .* has 3 CPUs"):
        concurrency(two, [{"CPU": 3.0}], None)
    apart = Resources(workers=2, placement="strict_spread")
    assert concurrency(apart, [{"CPU": 3.0}, {"CPU": 1.0}], None) == 1
    assert concurrency(apart, [{"CPU": 3.0}, {"CPU": 2.0}, {"CPU": 2.0}], None) == 3
    with pytest.raises(ConfigError, match="each on a different node, but .* 4 CPUs .* on 1 nodes"):
        concurrency(apart, [{"CPU": 4.0}], None)
    assert local_nodes()[0]["CPU"] == usable_cpus() >= 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at this address"),
        ("127.0.0.1:{silent}", "no Ray cluster answers at this address .*timed out"),
        ("ray://head:10001", "ray job submit"),
        ("head", "give host:port"),
    ],
)
def test_where_no_cluster_is(address: str, message: str) -> None:
    began = time.time()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = address.format(silent=silent.getsockname()[1])
        with (
            pytest.raises(ConfigError, match=f"--address {address}: .*{message}"),
            cluster(address, with_train=False, verbose=False),
        ):
            pass
    assert time.time() - began < 10


def test_a_ray_that_does_not_start_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(ConfigError, match="did not start .*timed out .*run the command again$"),
        cluster(None, with_train=False, verbose=False),
    ):
        pass


def test_it_warns_of_trials_that_do_not_start_and_again_after_twice_as_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    conductor = SimpleNamespace(standing_by=False)
    log = runner._Log(SimpleNamespace(conductor=conductor, check=lambda: None))
    waiting = [SimpleNamespace(status="PENDING", RUNNING="RUNNING")]
    told = []
    for now[0] in range(0, 600, 10):
        log.on_step_begin(0, waiting)
        told += [(now[0], record.getMessage()) for record in caplog.records]
        caplog.clear()
    assert [second for second, _ in told] == [70, 130, 250, 490]
    assert "has not started any trial for 130 s. On a busy machine" in told[1][1]
    running = [SimpleNamespace(status="RUNNING", RUNNING="RUNNING")]
    now[0] = 2000
    log.on_step_begin(0, running)
    assert not caplog.records


def test_one_process_runs_a_study(study: Study) -> None:
    with (
        locked_study(study.directory),
        pytest.raises(ConfigError, match="another process runs this study"),
    ):
        run_study(study)


def children() -> list[str]:
    return [p.name() for p in psutil.Process().children(recursive=True)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[dict[str, Any]]]:
    """A whole study: six trials at two learning rates, one of which is absurd."""
    folder = tmp_path_factory.mktemp("done")
    made = small_study(folder, "budget.trials=6", "final.seeds=1", method="apn")
    rates = Domain(kind="choice", args=(2e-3, 1e12))
    decays = Domain(kind="choice", args=(0.0, 1e-4, 1e-3))
    train = {"lr": rates, "weight_decay": decays}
    made = dataclasses.replace(
        made, space=dataclasses.replace(made.space, train=train), searcher="grid"
    )
    events: list[Event] = []
    run_study(made, listen=events.append)
    return made, events


@pytest.mark.search
def test_a_study_runs_to_its_end(done: tuple[Study, list[dict[str, Any]]]) -> None:
    study, events = done
    view = StudyView.read(study.directory)
    for trial in view.trials:
        assert (trial.state == "failed") == (trial.params["lr"] > 1)
        if trial.state == "failed":
            assert "lower lr" in trial.message
    assert len(view.trials) == 6
    assert {t.state for t in view.trials} <= {"complete", "pruned", "failed"}
    assert view.end and view.end.state == "done"
    assert events == read_events(study.events)
    assert (
        {f.role for f in view.finals} == {"reselect", "test"}
        if len([t for t in view.trials if t.state == "complete"]) > 1
        else {"test"}
    )
    for run in view.runs("test", "best"):
        assert (study.directory / run.detections).exists()
        assert run.metrics["test/mAP_avg"] >= 0
    best = study.trial_directory(view.best.number if view.best else 0)
    assert {p.name for p in best.iterdir()} == {CHECKPOINT, "report.json", "scores.npz"}


@pytest.mark.search
def test_early_stops_are_pruned_and_divergence_fails_in_optuna_too(
    done: tuple[Study, list[dict[str, Any]]],
) -> None:
    study, _ = done
    storage = open_journal(study.directory / JOURNAL)
    trials = optuna.load_study(study_name=study.name, storage=storage).get_trials()
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    view = StudyView.read(study.directory)
    assert [names[t.state.name] for t in trials] == [t.state for t in view.trials]
    for seen, told in zip(view.trials, trials, strict=True):
        assert told.params == seen.params
        assert told.intermediate_values == {r.step: r.objective for r in seen.reports}


@pytest.mark.search
def test_trials_start_at_once_and_nothing_stays_behind(
    done: tuple[Study, list[dict[str, Any]]],
) -> None:
    study, _ = done
    waits = {
        t.number: t.reports[0].to_first_step_s or 0.0
        for t in StudyView.read(study.directory).trials
        if t.reports
    }
    assert min(waits.values()) < max(waits.values()) / 4  # the first trials start the workers
    assert {p.name for p in study.directory.iterdir()} == {
        "events.jsonl", "final", "lock", JOURNAL, "study.json", "trials"
    }  # fmt: skip
    assert not [name for name in children() if "ray" in name]


@pytest.mark.cluster
@pytest.mark.slow
def test_two_trials_share_a_gpu_and_a_third_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node that claims three CPUs and a GPU, which no trial computes on."""
    monkeypatch.setattr(runner, "device", lambda resources: "cpu")
    made = small_study(tmp_path, "resources.gpus_per_worker=0.5", "final.seeds=1", "final.top=1")
    free: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Report):
            free.append(ray.available_resources().get("GPU", 0.0))

    with many_cpus(3, num_gpus=1) as address:
        view = run_study(
            dataclasses.replace(made, scheduler="none"), address=address, listen=listen
        )
    assert [t.state for t in view.trials] == ["complete"] * 4
    assert len(view.finals) == 2
    assert min(free) == 0.0  # two at a time
    running = most = 0
    for event in read_events(made.events):
        running += {"trial_start": 1, "trial_end": -1}.get(event.kind, 0)
        most = max(most, running)
    assert most == 2
