"""Studies and runs on data without a test split: figures are cross-validated, nothing is sealed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_store
from mlflow_numbers import logged_runs
from small_study import small_space
from synthetic_study import SyntheticStudy
from test_search_cli import lay_out

from ptal_ray import ablate, predict, search, train
from ptal_ray.backends.local import run_local
from ptal_ray.backends.preview import dry_run
from ptal_ray.backends.ray.runner import Listener
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError
from ptal_ray.policy.policies import make_policy
from ptal_ray.prediction.found_model import find_model
from ptal_ray.reporting.command import report as report_command
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.report import write_report
from ptal_ray.space.space import load_space
from ptal_ray.study.conclusion import conclusion
from ptal_ray.study.cross_validation import NOT_SEALED, cross_validated
from ptal_ray.study.duration import duration
from ptal_ray.study.event_types import (
    Event,
    Recommendation,
    Report,
    StudyStart,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import read_events
from ptal_ray.study.feasibility import problems
from ptal_ray.study.no_test_split import runs_after, runs_again
from ptal_ray.study.single_run import one_trial
from ptal_ray.study.study import Study, create_study
from ptal_ray.study.view import StudyView
from ptal_ray.tracking.model import recommended_run
from ptal_ray.tracking.runs import Round
from ptal_ray.training.model_file import read_model

SMALLER = (
    "budget.trials=7",
    "budget.min_steps=10",
    "budget.max_steps=10",
    "final.seeds=1",
    "final.top=1",
)


@pytest.fixture(scope="module")
def untested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "mine", train=9, test=0)


@pytest.fixture(scope="module", params=["race", "simple"])
def done(
    request: pytest.FixtureRequest, untested: Path, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    folder = tmp_path_factory.mktemp(request.param)
    study = begun(untested, folder, f"policy={request.param}")
    assert problems(study, FeatureStore.open(untested)) == []
    run_local(study, make_policy(study))
    return study


def begun(store: Path, folder: Path, *overrides: str, **settings: Any) -> Study:
    space = small_space(*SMALLER, *overrides)
    return create_study(space, FeatureStore.open(store), folder / "studies", seed=1, **settings)


def test_a_search_ends_with_cross_validated_figures_and_one_model(done: Study) -> None:
    view = StudyView.read(done.directory)
    assert view.end is not None and view.end.state == "done"
    assert not view.has_test and not view.arms("test")
    (deployed,) = view.deployable()
    assert deployed.role == "deploy" and not any("mAP" in name for name in deployed.metrics)
    found = cross_validated(view)
    assert found is not None
    assert 0 < found.arms["defaults"].mean < 1
    if done.space.policy == "simple":
        folds = range(done.num_folds)
        assert set(found.recommended) == set(found.defaults) == set(folds)
        assert {run.run_seed for run in view.runs("fold", "default")} == {2 + k for k in folds}
    else:
        assert not view.arms("fold")
        assert set(found.defaults) <= {t.cell for t in view.trials if t.arm == 0}


def test_the_model_detects_in_new_videos(done: Study, tmp_path: Path, untested: Path) -> None:
    import numpy as np

    store, features = FeatureStore.open(untested), tmp_path / "features"
    features.mkdir()
    np.save(features / "new.npy", store.video("video0").features)
    out = tmp_path / "detections.json"
    words = [str(done.directory), "--features", str(features), "--out", str(out)]
    assert predict.main([*words, "--threads", "1"]) == 0
    assert json.loads(out.read_text())["results"]["new"]


def test_every_output_says_that_nothing_was_sealed(
    done: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_report(done.directory, tmp_path / "reports")
    outcome = summary(done, folder, ())
    assert outcome["test"] is None and outcome["deployable"]
    figures = outcome["cross_validated"]
    for arm in ("recommended", "defaults"):
        assert 0 <= figures[arm]["mean"] <= 1 and len(figures[arm]["values"]) > 1
        assert figures[arm]["sd"] >= 0
    shown = show_summary(outcome)
    assert NOT_SEALED in shown.splitlines()
    assert f"cross-validated mAP, defaults     {100 * figures['defaults']['mean']:5.1f} ±" in shown
    assert "python -m ptal_ray.predict" in shown and "test mAP" not in shown
    text = (folder / "REPORT.md").read_text()
    assert NOT_SEALED in text and "## Cross-validation" in text
    assert f"{100 * figures['defaults']['mean']:.2f}" in text
    last = 1 + (done.num_folds if done.space.policy == "simple" else 1)
    after = f"2{f' to {last}' if last > 2 else ''} for the runs after it"
    if done.space.policy == "simple":
        assert f"seeds: 1 for the search, {after}" in text
    else:
        trials = sorted({t.seed for t in StudyView.read(done.directory).trials})
        assert len(trials) > 1
        named = ", ".join(map(str, trials))
        assert f"seeds: 1 for the choices of the search, {named} for its trials, {after}" in text
    assert "test split was read" not in text and "best.yaml --whole" in text
    page = (folder / "report.html").read_text()
    assert after in page
    assert NOT_SEALED in page and "Cross-validation" in page and "paired by seed" not in page
    assert json.loads((folder / "result.json").read_text())["cross_validated"] == json.loads(
        json.dumps(figures)
    )
    html = tmp_path / "methods.html"
    assert report_command([done.directory], tmp_path / "again", html=html) == 0
    assert "(cross-validated)" in capsys.readouterr().out
    assert f"Without a test split, not compared here: {done.name}" in html.read_text()


def test_mlflow_gets_the_figures_and_the_model(done: Study) -> None:
    updates = Round(StudyView(), read_events(done.events), done.directory).updates
    logged = {name: value for (name, _), (value, _) in updates["study"].metrics.items()}
    found = cross_validated(StudyView.read(done.directory))
    assert found is not None
    for arm, own in found.arms.items():
        assert logged[f"cv/{arm}"] == own.mean and logged[f"cv/{arm}_sd"] == own.sd
    assert NOT_SEALED in updates["study"].tags["mlflow.note.content"]
    assert updates["study"].tags["ptal.test_reads"] == "0"
    key = recommended_run(StudyView.read(done.directory))
    assert re.fullmatch(r"deploy/(best|default)/seed0", key) and key in updates


def test_the_plan_says_what_will_follow(
    done: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argparse

    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(address=None, out=tmp_path / "reports")
    plan = dry_run(replace(done, max_concurrent=1), args)
    assert plan["plan"].endswith(f"then one run on all videos; {NOT_SEALED}")
    assert duration(done, 1)["low_s"] > 0


@pytest.mark.parametrize(
    ("space", "trials", "again", "after"),
    [
        (["policy=simple"], 5, 4, 4),
        (["policy=simple"], 1, 0, 4),
        (["policy=simple", "final.top=1"], 5, 0, 4),
        (["policy=race"], 5, 0, 4),
        (["policy=simple", "selection.metric=test"], 5, 0, 6),  # what validation would choose too
    ],
)
def test_the_runs_beside_the_trials(space: list[str], trials: int, again: int, after: int) -> None:
    found = small_space(*space)
    assert runs_again(found, trials) == again
    assert runs_after(found, has_test=True) == (after, after)


def race(folder: Path, setting: int = 0, **recommended: Any) -> StudyView:
    """A race of two arms: three screened and raced cells, then two of the gate."""
    made = SyntheticStudy(folder / "study")
    made.begin()
    (begin,) = read_events(made.log.path)
    assert isinstance(begin, StudyStart)
    events: list[Event] = [replace(begin, test_videos=0)]
    number = 0
    for arm in (0, 1):
        for cell in range(5):
            stage = "race" if cell < 3 else "gate"
            value = 0.5 + 0.1 * arm + 0.01 * cell
            events += [
                TrialStart(time=1.0, trial=number, params={}, arm=arm, cell=cell, fold=cell % 3,
                           seed=cell, stage=stage),
                Report(time=1.0, trial=number, step=90, objective=value, metrics={}, decode={},
                       seconds=1.0, settings=(value, value + 0.2)),
                TrialEnd(time=1.0, trial=number, state="complete"),
            ]  # fmt: skip
            number += 1
    told = Recommendation(
        time=2.0, params={}, decode={}, setting=setting, **{"trial": 5} | recommended
    )
    return StudyView.from_events([*events, told])


def test_a_race_is_judged_by_the_cells_of_its_gate(tmp_path: Path) -> None:
    found = cross_validated(race(tmp_path, arm=1))
    assert found is not None and found.fresh
    assert found.recommended == pytest.approx({3: 0.63, 4: 0.64})
    assert found.defaults == pytest.approx({3: 0.53, 4: 0.54})
    assert found.differences == pytest.approx([0.1, 0.1])


def test_the_decode_setting_that_is_recommended_counts(tmp_path: Path) -> None:
    found = cross_validated(race(tmp_path, arm=0, setting=1))
    assert found is not None
    assert found.differences == pytest.approx([0.2] * 5)


def test_defaults_that_are_recommended_have_one_figure(tmp_path: Path) -> None:
    view = race(tmp_path, arm=0, trial=None)
    found = cross_validated(view)
    assert found is not None and found.recommended == found.defaults
    assert not found.differences and conclusion(view).found is None
    assert found.arms["defaults"].mean == pytest.approx(0.52)


def test_with_a_test_split_nothing_is_cross_validated(tmp_path: Path) -> None:
    made = SyntheticStudy(tmp_path / "study")
    made.begin()
    view = StudyView.read(tmp_path / "study")
    assert view.has_test and cross_validated(view) is None


def test_a_fold_without_an_instance_is_named_before_the_search(
    untested: Path, tmp_path: Path
) -> None:
    study = begun(untested, tmp_path, "selection.val_fraction=0.05")
    (problem,) = problems(study, FeatureStore.open(untested))
    assert "20 folds of 9 training videos" in str(problem)


@pytest.mark.usefixtures("runs_here")
def test_one_run(untested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "small.yaml"
    space.write_text(
        small_space(*SMALLER, "train.lr=0.003").to_yaml().replace("tiny", str(untested))
    )
    out = tmp_path / "run"
    assert train.main([str(space), "--test", "--out", str(out)]) == DataError.exit_code
    told = capsys.readouterr().err
    assert "split 'test' is empty" in told and "--whole" in told
    assert train.main([str(space), "--whole", "--out", str(out), "--threads", "1"]) == 0
    assert "mAP" not in capsys.readouterr().out
    assert read_model(out / "model.pt").method == small_space().method
    assert math.isnan(float(json.loads((out / "report.json").read_text())["objective"]))
    variant = ["--variant", "a:", "--seeds", "1", "--jobs", "1"]
    assert ablate.main([str(space), *variant, "--out", str(tmp_path / "ablation")]) == 0
    assert "The test split was not read" in (tmp_path / "ablation" / "REPORT.md").read_text()


@pytest.mark.search
def test_a_whole_search(
    untested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In this process; a test of `test_full_storage.py` runs one with Ray."""

    def run(study: Study, *, ready: Callable[[], None], listen: Listener, **rest: object) -> None:
        ready()
        run_local(study, make_policy(study), listen=listen)

    monkeypatch.setattr("ptal_ray.backends.ray.runner.run_study", run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, untested, *SMALLER, "policy=race")
    assert search.main(["small.yaml", "--json"]) == 0
    printed, shown = capsys.readouterr()
    outcome = json.loads(printed)
    assert outcome["state"] == "done" and outcome["test"] is None and outcome["deployable"]
    assert NOT_SEALED in shown and "cross-validated mAP, defaults" in shown
    report = tmp_path / outcome["report"]
    figures = outcome["cross_validated"]
    assert json.loads((report / "result.json").read_text())["cross_validated"] == figures
    assert NOT_SEALED in (report / "REPORT.md").read_text()
    best = one_trial(load_space(report / "best.yaml"), seed=0)
    assert (
        best.store == str(untested) and best.train["lr"] == outcome["recommended"]["params"]["lr"]
    )
    directory = tmp_path / "studies" / outcome["study"]
    runs, _ = logged_runs(outcome["mlflow"], directory)
    assert runs["study"].data.metrics["cv/defaults"] == figures["defaults"]["mean"]
    assert read_model(find_model(str(directory))).method == small_space().method
