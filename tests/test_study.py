"""Studies: their directory, and their runs after the search."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace

import pytest
import torch
from conftest import make_store
from toy_study import fill, space, toy_store, use_toy

from ptal_ray.errors import ConfigError, DataError, NoTrialFinished
from ptal_ray.methods.method import TrainParams
from ptal_ray.policy.simple import SimplePolicy
from ptal_ray.study.event_types import FinalReport, TrialEnd, TrialStart
from ptal_ray.study.events import EventLog
from ptal_ray.study.finals import final_jobs
from ptal_ray.study.provenance import provenance
from ptal_ray.study.study import (
    create_study,
    latest_study,
    read_study,
    trial_config,
)
from ptal_ray.study.view import StudyView


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


@pytest.fixture
def study(store, tmp_path):
    return create_study(space(), store, tmp_path / "studies", seed=5)


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
        ({"seed": 10**30}, "must be a whole number from 0 to 4294967295"),
    ],
)
def test_wrong_settings_are_named(store, tmp_path, settings, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        create_study(space(), store, tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("apn (1)", "apn_1_"), ("a+b,c@d", "a_b_c_d"), (".hidden", "hidden"), ("-x", "x"),
        ("é ß.2", "é_ß.2"), ("e\u0301", "é"), ("..", "_"), ("a/b\n", "a_b_"), ("\udcff", "_"),
        ("x" * 200, "x" * 134), ("é" * 200, "é" * 67),
    ],
)  # fmt: skip
def test_any_file_name_makes_the_name_of_a_study(store, tmp_path, file, name):
    named = replace(space(), name=file)
    made = create_study(named, store, tmp_path / "s")
    assert made.name[:-16] == name
    assert latest_study(tmp_path / "s", file) == made.name
    assert read_study(made.directory) == made


def test_a_trial_gets_every_parameter(study):
    config = trial_config(study, {"lr": 0.05})
    assert config.train == asdict(TrainParams(lr=0.05, batch_size=4))
    assert config.decode == {"threshold": 0.5}
    assert set(config.decode_domains) == {"threshold"}
    assert (config.fit_on, config.score_on, config.val_fraction) == ("fit", "val", 0.3)
    assert (config.report_steps, config.decode_settings, config.seed) == ((2, 4, 8), 4, 5)


def test_the_best_different_configurations_are_trained_again(study):
    view = fill(study, [0.1, 0.5, 0.5, 0.4], lr=lambda n: [0.01, 0.02, 0.02, 0.03][n])
    runs = final_jobs(study, view, "reselect")
    assert [(r.arm, r.repeat) for r in runs] == [
        ("candidate1", 0), ("candidate1", 1), ("candidate2", 0), ("candidate2", 1),
    ]  # fmt: skip
    assert [r.config.train["lr"] for r in runs] == [0.02, 0.02, 0.03, 0.03]
    assert [r.config.seed for r in runs] == [6, 7, 6, 7]
    assert {r.config.score_on for r in runs} == {"val"}
    assert {r.config.report_steps for r in runs} == {(8,)}
    assert all(r.config.decode_domains for r in runs)


def test_without_a_choice_nothing_is_reselected(study):
    assert final_jobs(study, fill(study, [0.3]), "reselect") == ()
    one = replace(study, space=space("final.top=1"))
    view = fill(study, [0.1, 0.5])
    assert final_jobs(one, view, "reselect") == ()
    assert recommend(one, view).trial == 1


def recommend(study, view):
    """What the policy recommends, logged as the loop does."""
    found = SimplePolicy(study).recommend(view)
    EventLog(study.events).append(found)
    return found


def reselect(study, values):
    log = EventLog(study.events)
    for (arm, seed), value in values.items():
        metrics = {} if value is None else {"val/mAP_avg": value}
        log.append(FinalReport(arm=arm, role="reselect", seed=seed, params={}, decode={},
                   step=8, metrics=metrics, detections=""))  # fmt: skip
    return StudyView.read(study.directory)


def test_the_winner_is_best_over_seeds_and_its_decoding_is_frozen(study):
    fill(study, [0.1, 0.5, 0.4])
    view = reselect(study, {("candidate1", 0): 0.9, ("candidate1", 1): 0.1,
                            ("candidate2", 0): 0.6, ("candidate2", 1): 0.6})  # fmt: skip
    assert recommend(study, view).trial == 2
    view = StudyView.read(study.directory)
    runs = final_jobs(study, view, "test")
    assert [(r.arm, r.repeat) for r in runs] == [
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
    assert recommend(study, view).trial == 2


def test_without_a_complete_trial_there_is_no_final_run(study):
    EventLog(study.events).append(TrialStart(trial=0, params={}, from_step=0))
    view = StudyView.read(study.directory)
    with pytest.raises(NoTrialFinished, match="none of 1 trials reached step 8"):
        final_jobs(study, view, "reselect")
    assert SimplePolicy(study).recommend(view) is None


def test_the_reason_of_failed_trials_is_the_last_line(study):
    log = EventLog(study.events)
    for number, message in enumerate(
        ["loss nan by step 3; lower lr", "", "loss nan by step 17; lower lr"]
    ):
        log.append(TrialStart(trial=number, params={}, from_step=0))
        state = "failed" if message else "pruned"
        log.append(TrialEnd(trial=number, state=state, message=message))
    with pytest.raises(NoTrialFinished) as error:
        final_jobs(study, StudyView.read(study.directory), "reselect")
    assert str(error.value).endswith("step 8; 2 of 3 failed: loss nan by step 17; lower lr")
    assert "allow more time" not in str(error.value)


def test_provenance_names_code_versions_and_hardware():
    found = provenance()
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", found["git_commit"])
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cpus"] >= 1
    assert found["hardware"]["memory_gib"] > 0
    json.dumps(found)
