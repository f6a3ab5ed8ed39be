"""Studies: their directory, their runs after the search, and the sequential loop."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import torch
from conftest import make_store
from torch import nn

from ptal_ray import study as studies
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores, Segments
from ptal_ray.errors import ConfigError, DataError, DivergedError, NoTrialFinished
from ptal_ray.eventlog import EventLog, read_events
from ptal_ray.local import run_local
from ptal_ray.methods import method as methods
from ptal_ray.methods.method import DecodeParams, Method, TrainParams, param
from ptal_ray.provenance import provenance
from ptal_ray.searcher import RandomSearcher
from ptal_ray.space import parse_space
from ptal_ray.study import (
    create_study,
    final_configs,
    latest_study,
    read_study,
    trial_config,
    winner,
)
from ptal_ray.tracking import StudyView
from ptal_ray.trial import Trial
from ptal_ray.trial_config import TrialReport


@dataclass(frozen=True, kw_only=True)
class ToyTrain(TrainParams):
    lr: float = param(0.02, doc="learning rate", source="PROPOSED", allowed=(1e-6, 1.0))


@dataclass(frozen=True, kw_only=True)
class ToyDecode(DecodeParams):
    threshold: float = param(0.5, doc="of the score", source="PROPOSED", allowed=(0.0, 1.0))


def toy_loss(model, batch, hp, step):
    logits = model(batch.features.transpose(1, 2)).transpose(1, 2)
    real = batch.point_t >= 0
    at = logits.gather(1, batch.point_t.clamp_min(0)[..., None].expand(-1, -1, logits.shape[-1]))
    each = nn.functional.binary_cross_entropy_with_logits(at, batch.point_label, reduction="none")
    return {"point": each[real].mean()}


def toy_scores(model, batch, hp, grids):
    probability = model(batch.features.transpose(1, 2)).sigmoid().transpose(1, 2)
    return [
        Scores(id=i, arrays={"probability": p[m].numpy()})
        for i, p, m in zip(batch.ids, probability, batch.mask, strict=True)
    ]


def toy_decode(scores, grid, duration_s, hp):
    probability = scores.arrays["probability"]
    best = probability.argmax(1)
    kept = probability.max(1) > hp.threshold
    edges = np.flatnonzero(np.diff(np.where(kept, best, -1))) + 1
    bounds = [0, *edges, len(best)]
    runs = [(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if kept[a]]
    found = Segments(
        start_s=grid.seconds(np.array([a for a, _ in runs], float)),
        end_s=np.minimum(grid.seconds(np.array([b for _, b in runs], float)), duration_s),
        label=np.array([best[a] for a, _ in runs], np.int64),
        score=np.array([probability[a:b].max() for a, b in runs], float),
    )
    return found.take(np.argsort(-found.score, kind="stable"))


TOY = Method(
    name="toy", supervision="point", train_params=ToyTrain, decode_params=ToyDecode,
    build=lambda store, hp: nn.Conv1d(store.info.feature_dim, store.info.num_classes, 1),
    loss=toy_loss, scores=toy_scores, decode=toy_decode,
)  # fmt: skip

SPACE = """
method: toy
dataset: tiny
selection: {metric: val, val_fraction: 0.3, decode_settings: 4}
budget: {trials: 6, min_steps: 2, max_steps: 8, eta: 2}
train: {lr: {loguniform: [1e-3, 1e-1]}, batch_size: 4}
decode: {threshold: {uniform: [0.1, 0.9]}}
final: {top: 2, seeds: 2}
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(methods, "load", lambda name: TOY)
    monkeypatch.setattr(methods, "names", lambda: ("toy",))
    monkeypatch.setattr("ptal_ray.trial.load", lambda name: TOY)
    monkeypatch.setattr(studies, "provenance", lambda: {"git_commit": "", "versions": {}})


@pytest.fixture
def store(tmp_path):
    return FeatureStore.open(make_store(tmp_path / "tiny", train=12, test=3))


def space(*overrides):
    return parse_space(SPACE, name="toy_tiny", source="toy_tiny.yaml", overrides=overrides)


@pytest.fixture
def study(store, tmp_path):
    return create_study(space(), store, tmp_path / "studies", seed=5)


class FakeTrial:
    """Reports the learning rate as its objective; no training."""

    objective = staticmethod(lambda config, step: float(config.train["lr"]) + step / 1e6)

    def __init__(self, config, device):
        self.config, self.step, self.first_step_at = config, 0, None
        self.scores, self.detections = [Scores(id="v", arrays={"a": np.zeros(2)})], {}

    @property
    def done(self):
        return self.step >= self.config.report_steps[-1]

    def advance(self):
        self.step = next(s for s in self.config.report_steps if s > self.step)
        self.first_step_at = time.time()
        value = self.objective(self.config, self.step)
        return TrialReport(
            step=self.step, objective=value, metrics={f"{self.config.score_on}/mAP_avg": value},
            decode=self.config.decode | {"threshold": 0.25}, seconds=0.1,
        )  # fmt: skip

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self.step))

    def load(self, path):
        self.step = int(path.read_text())


def run(study, factory=FakeTrial, **settings):
    searcher = RandomSearcher(study.space, study.seed, study.num_trials, **settings)
    return run_local(study, searcher, EventLog(study.events), factory)


def fill(study, objectives, **more):
    """A log of complete trials with these objectives."""
    log = EventLog(study.events)
    for number, value in enumerate(objectives):
        params = {"lr": more.get("lr", lambda n: 0.01 + n / 1000)(number)}
        log.append("trial_start", trial=number, params=params, from_step=0)
        log.append("report", trial=number, step=8, objective=value, metrics={}, seconds=1.0,
                   decode={"threshold": 0.1 * (number + 1)})  # fmt: skip
        log.append("trial_end", trial=number, state="complete", message="")
    return StudyView.read(study.directory)


def test_a_study_survives_its_file(study, tmp_path):
    assert re.fullmatch(r"toy_tiny-\d{8}-\d{6}", study.name)
    assert read_study(study.directory) == study
    assert study.num_trials == 6
    moved = study.directory.rename(tmp_path / "elsewhere")
    assert read_study(moved) == replace(study, directory=moved)
    assert not [p for p in moved.iterdir() if p.name != "study.json"]


def test_the_latest_study_of_a_space(store, tmp_path):
    made = [create_study(space(), store, tmp_path / "s") for _ in range(3)]
    assert len({s.name for s in made}) == 3
    assert latest_study(tmp_path / "s", "toy_tiny") == max(s.name for s in made)
    (tmp_path / "s" / "toy_tiny-99990101-000000").mkdir()  # killed before study.json
    assert latest_study(tmp_path / "s", "toy_tiny") == max(s.name for s in made)
    with pytest.raises(ConfigError, match="--resume: .* holds no study of toy"):
        latest_study(tmp_path / "s", "toy")


def test_a_changed_store_cannot_be_resumed(study, store, tmp_path):
    store.path.rename(tmp_path / "old")
    make_store(store.path, train=12, test=3, seed=1)
    with pytest.raises(DataError, match="content changed since the study began"):
        read_study(study.directory)


def test_a_damaged_study_file_is_named(study):
    path = study.directory / "study.json"
    text = path.read_text()
    for bad in (text[:50], "{}", text.replace('"num_trials"', '"trials"'), "[]"):
        path.write_text(bad)
        with pytest.raises(ConfigError, match=r"study\.json: damaged or of another version"):
            read_study(study.directory)
    path.unlink()
    with pytest.raises(ConfigError, match=r"study\.json: No such file .*give the directory"):
        read_study(study.directory)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"searcher": "tpee"}, "--searcher tpee: unknown; allowed are tpe, random, grid"),
        ({"scheduler": "pbt"}, "--scheduler pbt"),
        ({"num_trials": 0}, "--num-trials 0: must be positive"),
        ({"time_budget_s": -1.0}, "--time-budget -1.0"),
        ({"time_budget_s": math.nan}, "--time-budget nan"),
        ({"max_concurrent": 0}, "--max-concurrent 0"),
    ],
)
def test_wrong_settings_are_named(store, tmp_path, settings, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        create_study(space(), store, tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()


def test_nothing_to_search_is_an_error(store, tmp_path):
    with pytest.raises(ConfigError, match="train: has no domain, so 6 trials"):
        create_study(space("train.lr=0.1"), store, tmp_path)


def test_a_trial_gets_every_parameter(study):
    config = trial_config(study, {"lr": 0.05})
    assert config.train == asdict(TrainParams(lr=0.05, batch_size=4))
    assert config.decode == {"threshold": 0.5}
    assert set(config.decode_domains) == {"threshold"}
    assert (config.fit_on, config.score_on, config.val_fraction) == ("fit", "val", 0.3)
    assert (config.report_steps, config.decode_settings, config.seed) == ((2, 4, 8), 4, 5)


def test_the_best_different_configurations_are_trained_again(study):
    view = fill(study, [0.1, 0.5, 0.5, 0.4], lr=lambda n: [0.01, 0.02, 0.02, 0.03][n])
    runs = final_configs(study, view, "reselect")
    assert [(r.arm, r.seed) for r in runs] == [
        ("candidate1", 0), ("candidate1", 1), ("candidate2", 0), ("candidate2", 1),
    ]  # fmt: skip
    assert [r.config.train["lr"] for r in runs] == [0.02, 0.02, 0.03, 0.03]
    assert [r.config.seed for r in runs] == [6, 7, 6, 7]
    assert {r.config.score_on for r in runs} == {"val"}
    assert {r.config.report_steps for r in runs} == {(8,)}
    assert all(r.config.decode_domains for r in runs)


def test_without_a_choice_nothing_is_reselected(study):
    assert final_configs(study, fill(study, [0.3]), "reselect") == ()
    one = replace(study, space=space("final.top=1"))
    view = fill(study, [0.1, 0.5])
    assert final_configs(one, view, "reselect") == ()
    assert winner(one, view).number == 1


def reselect(study, values):
    log = EventLog(study.events)
    for (arm, seed), value in values.items():
        metrics = {} if value is None else {"val/mAP_avg": value}
        log.append("final_report", arm=arm, role="reselect", seed=seed, params={}, decode={},
                   step=8, metrics=metrics, detections="")  # fmt: skip
    return StudyView.read(study.directory)


def test_the_winner_is_best_over_seeds_and_its_decoding_is_frozen(study):
    fill(study, [0.1, 0.5, 0.4])
    view = reselect(study, {("candidate1", 0): 0.9, ("candidate1", 1): 0.1,
                            ("candidate2", 0): 0.6, ("candidate2", 1): 0.6})  # fmt: skip
    assert winner(study, view).number == 2
    runs = final_configs(study, view, "test")
    assert [(r.arm, r.seed) for r in runs] == [
        ("best", 0), ("best", 1), ("default", 0), ("default", 1),
    ]  # fmt: skip
    best, default = runs[0].config, runs[2].config
    assert best.train["lr"] == 0.012
    assert best.decode["threshold"] == pytest.approx(0.3)
    assert (default.train["lr"], default.decode["threshold"]) == (0.02, 0.5)
    for config in (best, default):
        assert config.decode_domains == {}
        assert (config.fit_on, config.score_on) == ("train", "test")
    assert runs[0].folder == "final/best_seed0"


def test_a_candidate_that_diverged_with_every_seed_cannot_win(study):
    fill(study, [0.1, 0.5, 0.4])
    view = reselect(study, {("candidate1", 0): None, ("candidate1", 1): None,
                            ("candidate2", 0): 0.2, ("candidate2", 1): 0.2})  # fmt: skip
    assert winner(study, view).number == 2


def test_without_a_complete_trial_there_is_no_final_run(study):
    EventLog(study.events).append("trial_start", trial=0, params={}, from_step=0)
    view = StudyView.read(study.directory)
    for role in ("reselect", "test"):
        with pytest.raises(NoTrialFinished, match="none of 1 trials reached step 8"):
            final_configs(study, view, role)


def test_a_study_runs_to_its_end(study):
    view = run(study)
    events = read_events(study.events)
    assert events[0]["event"] == "study"
    assert events[0]["space"]["budget"]["trials"] == 6
    assert events[0]["defaults"]["train"]["lr"] == 0.02
    assert events[0]["data_hash"] == study.data_hash
    assert events[-1]["event"] == "study_end"
    assert (events[-1]["state"], events[-1]["best_trial"]) == ("done", view.best.number)
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
    assert run(study, stop_early=False).counts["complete"] == 6


class Interrupted(FakeTrial):
    """Ctrl-C in the third trial after its first report."""

    started = 0

    def __init__(self, config, device):
        super().__init__(config, device)
        type(self).started += 1
        self.number = type(self).started

    def advance(self):
        if self.number == 3 and self.step == 2:
            raise KeyboardInterrupt
        return super().advance()


def test_an_interrupted_study_goes_on_where_it_stopped(study, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(study, Interrupted, stop_early=False)
    before = read_events(study.events)
    assert before[-1]["event"] == "study_end"
    assert before[-1]["state"] == "interrupted"
    view = run(read_study(study.directory), stop_early=False)
    after = read_events(study.events)[len(before) :]
    starts = [(e["trial"], e["from_step"]) for e in after if e["event"] == "trial_start"]
    assert starts == [(2, 2), (3, 0), (4, 0), (5, 0)]
    assert view.counts["complete"] == 6
    whole = create_study(study.space, FeatureStore.open(study.store), tmp_path / "t", seed=5)
    expected = run(whole, stop_early=False)
    assert [t.params for t in view.trials] == [t.params for t in expected.trials]
    num_events = len(read_events(study.events))
    run(study, stop_early=False)  # done already: nothing is trained again
    assert [e["event"] for e in read_events(study.events)[num_events:]] == ["study", "study_end"]


def test_restored_reports_stop_later_trials(study):
    view = fill(study, [0.9, 0.8, 0.7])
    searcher = RandomSearcher(study.space, 0, 6)
    searcher.restore(view.trials)
    assert searcher.report(3, 8, 0.5)
    assert not searcher.report(4, 8, 0.95)


class Diverging(FakeTrial):
    def advance(self):
        if self.config.train["lr"] > 0.005 and self.config.score_on == "val":
            raise DivergedError("train/loss_total: nan by step 2; lower lr")
        return super().advance()


class Hopeless(FakeTrial):
    def advance(self):
        raise DivergedError("train/loss_total: nan by step 2; lower lr")


def test_diverged_trials_are_failed_and_the_study_goes_on(study):
    view = run(study, Diverging)
    failed = [t for t in view.trials if t.state == "failed"]
    assert failed and all(t.message.startswith("train/loss_total: nan") for t in failed)
    assert view.counts["complete"] > 0


def test_a_study_in_which_all_trials_diverge_says_so(study):
    with pytest.raises(NoTrialFinished):
        run(study, Hopeless)
    end = read_events(study.events)[-1]
    assert (end["event"], end["state"], end["best_trial"]) == ("study_end", "done", None)
    assert "none of 6 trials" in end["message"]


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

    view = run(replace(study, time_budget_s=1.5), Slow, stop_early=False)
    assert 1 <= len(view.trials) < 6
    assert view.trials[-1].message in ("", "time budget")


def test_a_search_never_reads_the_annotations_of_the_test_split(store, study, monkeypatch):
    sealed = set(store.ids("test"))
    read = FeatureStore.annotations

    def guarded(self, video):
        if video in sealed:
            raise RuntimeError("test annotations were read")
        return read(self, video)

    monkeypatch.setattr(FeatureStore, "annotations", guarded)
    with pytest.raises(RuntimeError, match="test annotations were read"):
        run(study, Trial)
    view = StudyView.read(study.directory)
    assert len(view.trials) == 6 and view.counts["running"] == 0
    assert {f.role for f in view.finals} == {"reselect"}
    monkeypatch.setattr(FeatureStore, "annotations", read)
    assert len(run(study, Trial).runs("test", "best")) == 2


def test_the_sequential_search_learns(store, study):
    torch.manual_seed(0)
    view = run(study, Trial)
    assert view.best.objective > 0.2
    tested = [f.metrics["test/mAP_avg"] for f in view.runs("test", "best")]
    assert min(tested) > 0.2
    assert {"test/mAP_0.50", "test/mAP_avg_0.10-0.70", "train/loss_point"} <= set(
        view.runs("test", "best")[0].metrics
    )
    results = json.loads((study.directory / "final/best_seed0/detections.json").read_text())
    assert set(results["results"]) == set(store.ids("test"))


def test_random_suggestions_depend_on_seed_and_number_alone():
    plan = space()
    one, two = RandomSearcher(plan, 3, 5), RandomSearcher(plan, 3, 5)
    assert one.suggest(0) == {"lr": 0.02}
    assert one.suggest(4) == two.suggest(4) != two.suggest(3)
    assert RandomSearcher(plan, 4, 5).suggest(4) != one.suggest(4)
    assert one.suggest(5) is None
    assert all(plan.train["lr"].contains(one.suggest(k)["lr"]) for k in range(5))


def test_successive_halving_keeps_the_best_share():
    searcher = RandomSearcher(space(), 0, 9)
    values = [0.5, 0.4, 0.6, 0.55, 0.1, 0.7]
    stopped = [searcher.report(n, 2, v) for n, v in enumerate(values)]
    # best so far; 1 of 2; best; 2 of 4; 2 of 5; best
    assert stopped == [False, True, False, False, True, False]


def test_provenance_names_code_versions_and_hardware():
    found = provenance()
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", found["git_commit"])
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cpus"] >= 1
    assert found["hardware"]["memory_gib"] > 0
    json.dumps(found)
