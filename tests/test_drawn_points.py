"""`--points`: the points of training videos drawn anew, for a search, a run or an ablation."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store
from small_study import small_space
from test_trial import config

from ptal_ray import ablate, search, train
from ptal_ray.backends.local import run_local
from ptal_ray.data.drawn_points import drawn_points, redrawn
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.leaderboard import labels
from ptal_ray.reporting.report import write_report
from ptal_ray.space.space import load_space, parse_space
from ptal_ray.study.feasibility import problems
from ptal_ray.study.flags import parse
from ptal_ray.study.from_flags import planned
from ptal_ray.study.single_run import one_trial
from ptal_ray.study.study import create_study, read_study
from ptal_ray.study.view import StudyView, best_yaml
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.stage_cache import entry
from ptal_ray.training.supervision import selection_fold, split_ids
from ptal_ray.training.task import Task

pytestmark = pytest.mark.usefixtures("empty_plots")

SMALLER = (
    "budget.trials=2", "budget.min_steps=10", "budget.max_steps=10", "final.seeds=1", "final.top=1"
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=9)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("human", "human:seed=0"),
        ("uniform:jitter=0.5,dropout=0.1", "uniform:jitter=0.5,dropout=0.1,seed=0"),
        ("centre:label_noise=0.2:seed=1", "centre:label_noise=0.2,seed=1"),
        (" human : jitter = 1 ", "human:jitter=1.0,seed=0"),
    ],
)
def test_what_a_value_asks_for(text: str, whole: str) -> None:
    assert drawn_points(text).text == whole
    assert drawn_points(whole) == drawn_points(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("humans", "unknown kind; write KIND"),
        ("", "unknown kind"),
        ("human:speed=1", "'speed=1' is not allowed"),
        ("human:jitter=1,jitter=2", "'jitter=2' is not allowed"),
        ("human:jitter=far", "'far' is no number"),
        ("human:dropout=1", "^--points human:dropout=1: dropout 1: allowed is a fraction"),
        ("human:jitter=-1", "^--points human:jitter=-1: jitter -1: allowed are 0 or more seconds"),
        ("human:seed=-1", "allowed is a seed of 0 or more"),
    ],
)
def test_what_cannot_be_drawn(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawn_points(text)


def test_training_videos_alone_get_other_points(store: Path) -> None:
    stored = FeatureStore.open(store)
    drawn = redrawn(stored, "centre:seed=0")
    for id in stored.ids("train"):
        own = stored.annotations(id)
        middle = np.sort((own.start_s + own.end_s) / 2)
        np.testing.assert_allclose(drawn.points(id).time_s, middle)
    test = stored.ids("test")[0]
    assert len(drawn.points(test)) == len(stored.points(test))
    assert drawn.info == stored.info
    other = redrawn(stored, "uniform:seed=1")
    id = stored.ids("train")[0]
    assert (other.points(id).time_s != redrawn(stored, "uniform:seed=2").points(id).time_s).any()
    again = pickle.loads(pickle.dumps(other))
    assert (again.points(id).time_s == other.points(id).time_s).all()
    assert redrawn(stored, "") is stored


def test_a_run_trains_on_them_in_the_same_folds(store: Path) -> None:
    plain = config(store, "lacp")
    drawn = replace(plain, points="boundary:label_noise=0.5,seed=0")
    assert Task.of(drawn).ids == Task.of(plain).ids
    assert Task.of(drawn).score_ids == Task.of(plain).score_ids
    id = Task.of(plain).ids[0]
    times = [Task.of(c).store.points(id).time_s.tolist() for c in (plain, drawn)]
    assert times[0] != times[1]


def test_videos_without_a_drawn_point_are_left_out(store: Path) -> None:
    run = replace(config(store, "lacp"), points="uniform:dropout=0.9,seed=0")
    task = Task.of(run)
    fit, _ = selection_fold(FeatureStore.open(store), run, task.hp)
    assert 0 < len(task.ids) < len(fit)
    assert all(len(task.store.points(i)) for i in task.ids)


def test_a_configuration_says_them_and_old_ones_stay_as_they_were(store: Path) -> None:
    plain = config(store, "lacp")
    assert {"points", "select_on_test"}.isdisjoint(json.loads(plain.to_json()))
    on_test = replace(plain, select_on_test=True)
    assert TrialConfig.from_json(on_test.to_json()) == on_test
    drawn = replace(plain, points="human:seed=0", stages="stages")
    assert TrialConfig.from_json(drawn.to_json()) == drawn
    names = {entry((replace(drawn, points=p), "hash", ())) for p in ("", "human:seed=0")}
    assert len(names) == 2


def test_data_without_instances_and_other_methods_are_refused(store: Path, tmp_path: Path) -> None:
    stored = FeatureStore.open(store)
    info = stored.info
    with StoreWriter(
        tmp_path / "bare", name="bare", classes=info.classes, grid=info.grid, features="test",
        dtype="float32",
    ) as writer:  # fmt: skip
        for id in stored.ids("train"):
            writer.add(id, subset="train", features=stored.video(id).features,
                       duration_s=stored.duration_s(id), annotations=Segments.empty(),
                       points=stored.points(id))  # fmt: skip
    run = replace(config(tmp_path / "bare", "lacp"), points="human:seed=0", score_on="none")
    with pytest.raises(DataError, match="--points human:seed=0: the . training videos have no"):
        split_ids(FeatureStore.open(tmp_path / "bare"), run, Task.of(config(store, "lacp")).hp)
    study = create_study(small_space(), stored, tmp_path / "studies", points="human:seed=0")
    other = replace(study, space=replace(study.space, method="apl.actionformer", train={},
                                         train_fixed={}))  # fmt: skip
    assert "does not learn from points" in str(problems(other, stored)[0])


def test_a_study_keeps_and_names_them(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = small_space(*SMALLER)
    study = create_study(
        space, FeatureStore.open(store), tmp_path / "studies", points="human:seed=0"
    )
    assert read_study(study.directory).points == "human:seed=0"
    run_local(study, make_policy(study))
    view = StudyView.read(study.directory)
    assert view.study.note.endswith("points drawn anew: human:seed=0")
    assert labels(view) == "points (human:seed=0)"
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "points drawn anew: human:seed=0" in text
    assert text.count("--points human:seed=0") == 2  # the search, and the best run
    resume = ["--resume", str(study.directory), "--points", "uniform"]
    assert search.main(resume) == ConfigError.exit_code
    assert "--points: a resumed study keeps its own" in capsys.readouterr().err


def test_the_same_value_draws_the_same_points_in_every_command(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "small.yaml"
    space.write_text(small_space().to_yaml().replace("dataset: tiny", f"dataset: {store}"))
    for flag in ("uniform", "uniform:seed=3"):
        flags = parse([str(space), "--points", flag, "--seed", "5"])
        study, _, _ = planned(flags)
        run = one_trial(load_space(space), 5, flag)
        assert study.points == run.points == drawn_points(flag).text


def test_a_best_configuration_is_trained_on_the_points_of_its_search(
    store: Path, tmp_path: Path
) -> None:
    space = small_space(*SMALLER, "train.lr=0.003")
    space = replace(space, dataset=str(store))
    study = create_study(
        space, FeatureStore.open(store), tmp_path / "studies", points="uniform:seed=5"
    )
    run_local(study, make_policy(study))
    report = write_report(study.directory, tmp_path / "reports")
    for name in ("best.yaml", "space.yaml"):
        kept = load_space(report / name)
        assert kept.points == one_trial(kept, 1).points == "uniform:seed=5"
        assert one_trial(kept, 1, "human").points == "human:seed=0"
    assert "points: 'uniform:seed=5'" in (best_yaml(StudyView.read(study.directory)) or "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("humans", "small.yaml:1: points: unknown kind; write KIND"),
        ("[human]", "small.yaml:1: points: .*text"),
    ],
)
def test_points_of_a_space_are_checked(value: str, message: str) -> None:
    text = f"points: {value}\n{small_space().to_yaml()}"
    with pytest.raises(ConfigError, match=message):
        parse_space(text, name="small", source="small.yaml")


@pytest.mark.usefixtures("runs_here")
def test_an_ablation_compares_kinds_as_rows(store: Path, tmp_path: Path) -> None:
    space = tmp_path / "small.yaml"
    made = small_space(*SMALLER, "train.lr=0.003").to_yaml()
    space.write_text(made.replace("dataset: tiny", f"dataset: {store}"))
    flags = ["--points", "uniform", "--points", "human:jitter=0.5", "--seeds", "1", "--jobs", "1"]
    out = tmp_path / "out"
    assert ablate.main([str(space), "--variant", "base:", *flags, "--out", str(out)]) == 0
    rows = json.loads((out / "result.json").read_text())
    assert list(rows) == ["base, uniform:seed=0", "base, human:jitter=0.5,seed=0"]
    report = (out / "REPORT.md").read_text()
    assert "| base, human:jitter=0.5,seed=0 | 1 |" in report
    run = ["--points", "centre", "--out", str(tmp_path / "run"), "--threads", "1"]
    assert train.main([str(space), *run]) == 0
    assert train.main([str(space), "--points", "x", "--out", str(tmp_path / "run")]) == 2
