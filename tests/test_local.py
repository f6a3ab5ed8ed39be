"""The sequential loop: a study in this process, one trial after the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import toy_study
from toy_study import space, toy_store, use_toy

from ptal_ray.backends.local import run_local
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DivergedError, NoTrialFinished
from ptal_ray.policy.halving import Halving
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.study import job as jobs
from ptal_ray.study.event_types import StudyEnd, StudyStart, TrialStart
from ptal_ray.study.events import read_events
from ptal_ray.study.start_end import locked_study
from ptal_ray.study.study import create_study, read_study
from ptal_ray.study.view import StudyView
from ptal_ray.training.stages import start


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


@pytest.fixture
def study(store, tmp_path):
    return create_study(space(), store, tmp_path / "studies", seed=5)


class FakeTrial(toy_study.FakeTrial):
    """Reports the learning rate as its objective."""

    tuned = {"threshold": 0.25}

    def value(self):
        return float(self.config.train["lr"]) + self.step / 1e6


def run(study, factory=FakeTrial, scheduler="asha", **more):
    study = replace(study, scheduler=scheduler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "start", factory)
        return run_local(study, make_policy(study), **more)


def test_only_one_process_runs_a_study(study):
    with (
        locked_study(study.directory),
        pytest.raises(ConfigError, match="another process runs this study; wait for it"),
    ):
        run(study)
    assert not study.events.exists()


def test_a_study_runs_to_its_end(study):
    view = run(study)
    events = read_events(study.events)
    assert isinstance(events[0], StudyStart)
    assert events[0].space["budget"]["trials"] == 6
    assert events[0].defaults["train"]["lr"] == 0.02
    assert events[0].data_hash == study.data_hash
    assert isinstance(events[-1], StudyEnd)
    assert events[-1].state == "done"
    assert view.recommended.trial == view.best.number
    assert [t.number for t in view.trials] == list(range(6))
    assert view.trials[0].params == {"lr": 0.02}
    assert view.counts["running"] == 0
    assert view.counts["pruned"] > 0
    assert all(0 <= t.reports[0].to_first_step_s < 1 for t in view.trials)
    assert Counter((f.role, f.arm) for f in view.finals) == {
        ("reselect", "candidate1"): 2, ("reselect", "candidate2"): 2,
        ("test", "best"): 2, ("test", "default"): 2,
    }  # fmt: skip
    best = max(view.trials, key=lambda t: t.params["lr"])
    assert view.best == best
    assert view.best_config()[0]["lr"] == best.params["lr"]
    detections = json.loads((study.directory / "final/best_seed0/detections.json").read_text())
    assert detections["results"] == {}
    assert (study.trial_directory(best.number) / "checkpoint.pt").exists()
    pruned = next(t for t in view.trials if t.state == "pruned")
    assert not (study.trial_directory(pruned.number) / "checkpoint.pt").exists()


def test_without_early_stopping_every_trial_completes(study):
    assert run(study, scheduler="none").counts["complete"] == 6


class Interrupted(FakeTrial):
    """Ctrl-C in the third trial after its first report."""

    started = 0

    def __init__(self, config, device, rank=0, world_size=1):
        super().__init__(config, device)
        type(self).started += 1
        self.number = type(self).started

    def advance(self):
        if self.number == 3 and self.step == 2:
            raise KeyboardInterrupt
        return super().advance()


class Broken(FakeTrial):
    def advance(self):
        raise KeyError("lr")


@pytest.mark.parametrize(
    "kind, error, end",
    [
        (FakeTrial, None, ("done", "")),
        (Interrupted, KeyboardInterrupt, ("interrupted", "")),
        (Broken, KeyError, ("interrupted", "KeyError: 'lr'")),
    ],
)
def test_a_listener_is_told_of_the_start_and_of_every_end(study, kind, error, end, monkeypatch):
    monkeypatch.setattr(Interrupted, "started", 0)
    told = []
    with pytest.raises(error) if error else nullcontext():
        run(study, kind, scheduler="none", listen=told.append)
    assert isinstance(told[0], StudyStart)
    assert isinstance(told[-1], StudyEnd) and (told[-1].state, told[-1].message) == end
    assert told == read_events(study.events)


def test_an_interrupted_study_goes_on_where_it_stopped(study, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(study, Interrupted, scheduler="none")
    before = read_events(study.events)
    assert isinstance(before[-1], StudyEnd)
    assert before[-1].state == "interrupted"
    view = run(read_study(study.directory), scheduler="none")
    after = read_events(study.events)[len(before) :]
    starts = [(e.trial, e.from_step) for e in after if isinstance(e, TrialStart)]
    assert starts == [(2, 2), (3, 0), (4, 0), (5, 0)]
    assert view.counts["complete"] == 6
    whole = create_study(study.space, FeatureStore.open(study.store), tmp_path / "t", seed=5)
    expected = run(whole, scheduler="none")
    assert [t.params for t in view.trials] == [t.params for t in expected.trials]
    num_events = len(read_events(study.events))
    run(study, scheduler="none")  # done already: nothing is trained again
    assert [e.kind for e in read_events(study.events)[num_events:]] == ["study", "study_end"]


class Diverging(FakeTrial):
    def advance(self):
        if self.config.train["lr"] > 0.005 and self.config.score_on == "val":
            raise DivergedError("train/loss_total: nan by step 2; lower lr")
        return super().advance()


class DivergingStage(FakeTrial):
    """Diverges before it is there, as a trial does whose earlier stage diverges."""

    def __init__(self, config, device, rank=0, world_size=1):
        super().__init__(config, device)
        if config.train["lr"] > 0.005 and config.score_on == "val":
            raise DivergedError("train/loss_contrast: nan by step 2; lower lr")


class Hopeless(FakeTrial):
    def advance(self):
        raise DivergedError("train/loss_total: nan by step 2; lower lr")


@pytest.mark.parametrize("kind", [Diverging, DivergingStage])
def test_diverged_trials_are_failed_and_the_study_goes_on(study, kind):
    view = run(study, kind)
    failed = [t for t in view.trials if t.state == "failed"]
    assert failed and all(": nan by step 2" in t.message for t in failed)
    assert view.counts["complete"] > 0


def test_a_study_in_which_all_trials_diverge_says_so(study):
    with pytest.raises(NoTrialFinished):
        run(study, Hopeless)
    end = read_events(study.events)[-1]
    assert (end.kind, end.state) == ("study_end", "done")
    assert "none of 6 trials" in end.message


def test_a_diverged_final_run_is_recorded(study):
    class LateDivergence(FakeTrial):
        def advance(self):
            if self.config.score_on == "test" and self.config.seed == 6:
                raise DivergedError("scores of v: not finite")
            return super().advance()

    view = run(study, LateDivergence)
    assert [f.metrics == {} for f in view.runs("test", "best")] == [True, False]


def test_the_time_budget_ends_a_study(study):
    class Slow(FakeTrial):
        def advance(self):
            time.sleep(0.2 if len(self.config.report_steps) > 1 else 0)
            return super().advance()

    view = run(replace(study, time_budget_s=1.5), Slow, scheduler="none")
    assert 1 <= len(view.trials) < 6
    assert view.trials[-1].message in ("", "time budget")


def test_a_search_never_reads_the_annotations_of_the_test_split(store, study, monkeypatch):
    class Read(Exception):
        """Test annotations were read."""

    sealed = set(store.ids("test"))
    read = FeatureStore.annotations

    def guarded(self, video):
        if video in sealed:
            raise Read
        return read(self, video)

    monkeypatch.setattr(FeatureStore, "annotations", guarded)
    with pytest.raises(Read):
        run(study, start)
    view = StudyView.read(study.directory)
    assert len(view.trials) == 6 and view.counts["running"] == 0
    assert {f.role for f in view.finals} == {"reselect"}
    monkeypatch.setattr(FeatureStore, "annotations", read)
    assert len(run(study, start).runs("test", "best")) == 2


def test_the_sequential_search_learns(store, study):
    torch.manual_seed(0)
    view = run(study, start)
    assert view.best.objective > 0.2
    tested = [f.metrics["test/mAP_avg"] for f in view.runs("test", "best")]
    assert min(tested) > 0.2
    assert {"test/mAP_0.50", "test/mAP_avg_0.10-0.70", "train/loss_point"} <= set(
        view.runs("test", "best")[0].metrics
    )
    results = json.loads((study.directory / "final/best_seed0/detections.json").read_text())
    assert set(results["results"]) == set(store.ids("test"))


def test_successive_halving_keeps_the_best_share():
    halving = Halving(2)
    values = [0.5, 0.4, 0.6, 0.55, 0.1, 0.7]
    stopped = [halving.take(n, 2, v) for n, v in enumerate(values)]
    # first; below 0.5; best; above the median 0.5; below; best
    assert stopped == [False, True, False, False, True, False]
    assert halving.take(6, 2, float("nan"))


@pytest.mark.parametrize("best", [0.02, 0.05])  # 0.02 is the default
def test_a_simple_search_names_a_trial_only_where_it_is_not_the_defaults(study, tmp_path, best):
    class Peaked(FakeTrial):
        def value(self):
            return 0.9 - abs(float(self.config.train["lr"]) - best)

    view = run(study, Peaked, scheduler="none")
    won = min(view.trials, key=lambda t: abs(t.params["lr"] - best))
    assert (won.params["lr"] == 0.02) == (best == 0.02)
    outcome = summary(study, tmp_path / "report", ())
    number = None if best == 0.02 else won.number
    assert outcome["recommended"]["trial"] == outcome["best_trial"] == number
    assert outcome["recommended"]["params"] == won.params
    assert (outcome["verdict"], outcome["difference"]) == (None, None)
    lines = [one for one in show_summary(outcome).splitlines() if one.startswith("test mAP, ")]
    assert ["trial" in one for one in lines] == ([False] if number is None else [True, False])
    assert number is None or f"(trial {number}, 2 seeds" in lines[0]
