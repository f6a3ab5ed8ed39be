"""A study under Ray: the order of things, what fits, early stops, failures and a clean end."""

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
from conftest import make_store
from test_trial import SMALL

from ptal_ray.data.store import FeatureStore
from ptal_ray.distributed import runner
from ptal_ray.distributed.cluster import cluster, concurrency, local_cpus, local_nodes
from ptal_ray.distributed.conductor import Conductor, searched_seconds
from ptal_ray.distributed.job import STANDBY, Job
from ptal_ray.distributed.runner import run_study
from ptal_ray.distributed.searcher import JOURNAL, OptunaSearcher, open_journal
from ptal_ray.domain import Domain
from ptal_ray.errors import ConfigError, NoTrialFinished
from ptal_ray.eventlog import EventLog, read_events
from ptal_ray.methods.method import load
from ptal_ray.run_folder import CHECKPOINT
from ptal_ray.space import Resources, parse_space
from ptal_ray.study import Study, create_study, study_event
from ptal_ray.tracking import Report, StudyView, TrialView

METHOD = min(n for n in SMALL if load(n).stage is None and "." not in n)
SPACE = f"""
method: {METHOD}
dataset: tiny
selection: {{metric: val, val_fraction: 0.34, decode_settings: 2}}
budget: {{trials: 4, min_steps: 10, max_steps: 40, eta: 2}}
train:
  lr: {{loguniform: [1.0e-3, 1.0e-2]}}
  weight_decay: {{choice: [1.0e-5, 1.0e-4]}}
final: {{top: 2, seeds: 2}}
"""


def small_space(*overrides: str) -> Any:
    """A space whose trials take a second."""
    fixed = [f"train.{k}={v}" for k, v in SMALL[METHOD].items() if k != "lr"]
    return parse_space(SPACE, name="small", source="small.yaml", overrides=(*fixed, *overrides))


def small_study(folder: Path, *overrides: str, **settings: Any) -> Study:
    store = FeatureStore.open(make_store(folder / "tiny", train=9))
    return create_study(small_space(*overrides), store, folder / "studies", **settings)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = small_study(tmp_path)
    EventLog(made.events).append(**study_event(made))
    return made


class Desk:
    """A conductor, and what Tune would tell it."""

    def __init__(self, study: Study) -> None:
        self.replayed: list[tuple[str, int]] = []
        self.events: list[dict[str, Any]] = []
        self.conductor = Conductor(
            study,
            OptunaSearcher(study),
            EventLog(study.events),
            lambda trial_id, trial, was="": self.replayed.append((trial_id, trial.number)),
            self.events.append,
        )
        self.jobs: dict[str, Job] = {}

    def take(self, *ids: str) -> list[str]:
        """Folders of the next jobs, "standby" or "none"."""
        found = []
        for id in ids:
            text = self.conductor.next_job(id)
            if text:
                self.jobs[id] = Job.from_json(text)
            names = {None: "none", STANDBY: "standby"}
            found.append(self.jobs[id].folder if text else names[text])
        return found

    def report(self, id: str, step: int, objective: float = 0.5) -> dict[str, Any]:
        result = {
            "step": step, "objective": objective, "metrics": {"val/mAP_avg": objective},
            "decode": {}, "seconds": 1.0, "to_first_step_s": 0.1, "failed": None,
        }  # fmt: skip
        self.conductor.reported(id, result)
        return result

    def end(self, id: str, step: int = 40, objective: float = 0.5) -> None:
        self.conductor.ended(id, self.report(id, step, objective))

    def end_final(self, id: str) -> None:
        job = self.jobs[id]
        assert job.final
        role, arm, seed = job.final
        score = {"reselect": "val", "test": "test"}[role]
        event = {
            "event": "final_report", "arm": arm, "role": role, "seed": seed, "step": 40,
            "params": job.config.train, "decode": job.config.decode, "detections": "",
            "metrics": {f"{score}/mAP_avg": 0.5},
        }  # fmt: skip
        result = {"failed": None, "event": event}
        self.conductor.reported(id, result)
        self.conductor.ended(id, result)


def test_search_then_reselect_then_test(study: Study) -> None:
    desk = Desk(study)
    assert desk.take("a", "b") == ["trials/00000", "trials/00001"]
    desk.end("a", 40, 0.2)
    desk.end("b", 10)
    assert desk.take("c", "d") == ["trials/00002", "trials/00003"]
    desk.conductor.ended("c", {"done": True, "failed": "loss is nan"})
    assert desk.take("e") == ["standby"]
    assert not desk.conductor.expired("e")
    desk.end("d", 40, 0.9)
    assert desk.take("f") == ["final/candidate1_seed0"]
    assert desk.conductor.expired("e")
    desk.conductor.ended("e", {})
    assert desk.take("g", "h", "i") == [
        "final/candidate1_seed1", "final/candidate2_seed0", "final/candidate2_seed1"
    ]  # fmt: skip
    assert desk.take("j") == ["standby"]
    for id in "fghi":
        desk.end_final(id)
    assert not desk.conductor.expired("j")  # until the runs after these are known
    names = desk.take(*"klmn")
    assert names == ["final/best_seed0", "final/best_seed1", "final/default_seed0",
                     "final/default_seed1"]  # fmt: skip
    assert not desk.conductor.expired("j")  # one of these may need its place
    assert desk.take("o") == ["standby"]
    desk.conductor.ended("k", {}, "its node was lost")
    assert desk.conductor.expired("j")
    desk.conductor.ended("j", {})
    assert desk.take("p") == ["final/best_seed0"]
    assert not desk.conductor.over
    for id in "lmnp":
        desk.end_final(id)
    assert desk.conductor.over
    view = StudyView.read(study.directory)
    assert [t.state for t in view.trials] == ["complete", "pruned", "failed", "complete"]
    assert view.trials[2].message == "loss is nan"
    assert len(view.finals) == 8
    assert desk.jobs["p"].config.train == desk.jobs["d"].config.train
    assert desk.events == read_events(study.events)[1:]


def test_a_failed_final_run_does_not_end_the_study(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id)
    desk.take("e")
    desk.conductor.ended("e", {"failed": "ValueError: no"})
    assert read_events(study.events)[-1]["message"] == "ValueError: no"


def test_a_run_whose_process_is_lost_is_taken_up_but_not_forever(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b")
    desk.report("a", 10)
    for lost, id in (("a", "c"), ("c", "d")):
        desk.conductor.ended(lost, {}, "it died")
        assert desk.take(id) == ["trials/00000"]
        assert desk.jobs[id].reported_step == 10
    assert desk.replayed == [("c", 0), ("d", 0)]
    desk.conductor.ended("d", {}, "it died again")
    assert [e["reason"] for e in desk.events if e["event"] == "restart"] == ["it died"] * 2
    end = desk.events[-1]
    assert (end["event"], end["state"]) == ("trial_end", "failed")
    assert end["message"] == "failed 3 times; last: it died again"
    assert desk.take("e") == ["trials/00002"]


def test_what_stands_by_makes_room_for_a_run_that_lost_its_node(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b", "c", "d")
    for id in "abc":
        desk.end(id)
    assert desk.take("e") == ["standby"]
    assert not desk.conductor.expired("e")  # d trains
    desk.conductor.without_process = {"d", "e"}
    assert desk.conductor.expired("e")
    desk.conductor.ended("e", {})
    desk.conductor.without_process = set()
    assert desk.take("f") == ["standby"]
    desk.end("d")
    assert desk.take("g") != ["standby"]


def test_no_finished_trial_is_an_error(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id, 10)
    with pytest.raises(NoTrialFinished, match="none of 4 trials reached step 40"):
        desk.take("e")


def test_a_resumed_study_hands_out_interrupted_trials_first(study: Study) -> None:
    before = Desk(study)
    before.take(*"abc")
    before.report("a", 10, 0.4)
    before.end("b", 40, 0.6)
    before.report("c", 10, 0.3)
    checkpoint = study.trial_directory(2) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("")
    (checkpoint.parent / "report.json").write_text('{"step": 10}')
    after = Desk(study)
    assert after.replayed == [("ended-1", 1)]
    assert after.take("x", "y", "z", "w") == [
        "trials/00000", "trials/00002", "trials/00003", "standby"
    ]  # fmt: skip
    assert after.replayed == [("ended-1", 1), ("x", 0), ("y", 2)]
    assert after.jobs["x"].config == before.jobs["a"].config
    assert after.jobs["y"].reported_step == 10
    starts = [e for e in after.events if e["event"] == "trial_start"]
    assert [e["from_step"] for e in starts] == [0, 10, 0]  # trial 0 lost its checkpoint


def test_unfinished_trials_leave_no_checkpoint(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b")
    for id in "ab":
        desk.jobs[id].path.mkdir(parents=True)
        (desk.jobs[id].path / CHECKPOINT).write_text("")
    desk.end("a", 40)
    desk.end("b", 20)
    assert (desk.jobs["a"].path / CHECKPOINT).exists()
    assert not (desk.jobs["b"].path / CHECKPOINT).exists()


def test_the_time_budget_counts_search_trials_of_all_runs(study: Study) -> None:
    times = [
        ("study", 0),
        ("trial_start", 1),
        ("report", 5),
        ("study_end", 90),
        ("study", 100),
        ("trial_start", 101),
        ("trial_end", 103),
        ("final_report", 150),
        ("study", 200),
    ]
    assert searched_seconds([{"event": e, "time": t} for e, t in times]) == 5 + 3
    desk = Desk(dataclasses.replace(study, time_budget_s=0.2))
    assert desk.take("a", "b") == ["trials/00000", "trials/00001"]
    desk.report("a", 10)
    assert not desk.conductor.expired("a")
    time.sleep(0.25)
    assert desk.conductor.expired("a")
    desk.end("a", 20)
    assert desk.take("c") == ["standby"]
    desk.end("b", 40)
    assert desk.take("d", "e") == ["final/best_seed0", "final/best_seed1"]
    assert not desk.conductor.expired("d")
    view = StudyView.read(study.directory)
    assert [(t.state, t.message) for t in view.trials] == [
        ("pruned", "time budget"), ("complete", "")
    ]  # fmt: skip


def test_a_search_is_over_once_final_runs_are_known(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abc":
        desk.end(id)
    desk.end("d", 10)
    desk.take("e")
    desk.end_final("e")
    more = dataclasses.replace(study, num_trials=9)
    assert Desk(more).take("x")[0].startswith("final/")


def test_asha_knows_the_rungs_of_an_interrupted_run(study: Study) -> None:
    asha = runner._Asha(study)
    for number, value in enumerate((0.2, 0.6, 0.8)):
        reports = tuple(
            Report(time=0, step=s, objective=value, metrics={}, decode={}, seconds=0)
            for s in (10, 20)
        )
        asha.replay(f"ended-{number}", TrialView(number=number, params={}, reports=reports))

    def decision(id: str, step: int, value: float) -> str:
        trial: Any = SimpleNamespace(trial_id=id)
        asha.on_trial_add(trial, trial)
        return asha.on_trial_result(trial, trial, {"step": step, "objective": value})

    assert decision("x", 10, 0.59) == "STOP"
    assert decision("y", 10, 0.7) == "CONTINUE"
    assert decision("z", 20, 0.5) == "STOP"
    assert decision("ended-2", 20, 0.1) == "CONTINUE"  # its decision was made
    asha.spared = lambda trial_id: trial_id == "defaults"
    assert decision("defaults", 10, 0.1) == "CONTINUE"


def test_the_defaults_run_to_their_end(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b")
    assert desk.conductor.spared("a")
    assert not desk.conductor.spared("b")


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
    with pytest.raises(ConfigError, match="each on another node, but .* 4 CPUs .* on 1 nodes"):
        concurrency(apart, [{"CPU": 4.0}], None)
    assert local_nodes()[0]["CPU"] == local_cpus() >= 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("127.0.0.1:{silent}", "no Ray cluster answers there .*timed out"),
        ("ray://head:10001", "ray job submit"),
        ("head", "write host:port"),
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


def test_one_process_runs_a_study(study: Study) -> None:
    with (
        runner._alone(study.directory),
        pytest.raises(ConfigError, match="another process runs this study"),
    ):
        run_study(study)


def children() -> list[str]:
    return [p.name() for p in psutil.Process().children(recursive=True)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[dict[str, Any]]]:
    """A whole study: six trials at two learning rates, one of which is absurd."""
    made = small_study(tmp_path_factory.mktemp("done"), "budget.trials=6", "final.seeds=1")
    rates = Domain(kind="choice", args=(2e-3, 1e12))
    decays = Domain(kind="choice", args=(0.0, 1e-4, 1e-3))
    train = {"lr": rates, "weight_decay": decays}
    made = dataclasses.replace(
        made, space=dataclasses.replace(made.space, train=train), searcher="grid"
    )
    events: list[dict[str, Any]] = []
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
    assert view.end and view.end["state"] == "done"
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
