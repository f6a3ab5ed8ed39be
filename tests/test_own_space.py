"""A space for data of one's own: what is filled in, what a study keeps, what a dry run says."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import make_store

from ptal_ray import ablate, search, train
from ptal_ray.data.facts import facts
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.methods import method as methods
from ptal_ray.space import adapt, fill
from ptal_ray.space.catalog import catalog
from ptal_ray.space.space import load_space, parse_space
from ptal_ray.study import duration
from ptal_ray.study.continuing import check_space, overrides
from ptal_ray.study.feasibility import problems
from ptal_ray.study.study import Study, create_study, read_study
from ptal_ray.training.trial import Trial

SPACES = Path(__file__).parents[1] / "search_spaces"
OWN = {name.rpartition(".")[2]: name for name in methods.names()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which the store "mine" is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_store(tmp_path / "mine", train=9)
    return tmp_path


def begin(folder: Path, *settings: str) -> Study:
    space = load_space("lacp", settings, "mine")
    store = FeatureStore.open(folder / "mine")
    given = overrides(list(settings), "mine")
    return create_study(space, store, folder / "studies", overrides=given)


def test_a_method_of_points_reads_no_annotation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sealed(store: FeatureStore, id: str) -> Any:
        raise AssertionError(f"the annotations of {id} were read")

    monkeypatch.setattr(FeatureStore, "annotations", sealed)
    for name in ("apn", "fsptal", "lacp", "potloc"):
        assert load_space(name, dataset="mine").derived
    with pytest.raises(AssertionError, match="were read"):
        load_space("actionformer", dataset="mine")


def test_a_semi_supervised_method_reads_those_of_its_share_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(adapt, "facts", lambda store, ids, gpu: seen.append(ids) or facts(
        store, ids, gpu))  # fmt: skip
    load_space("apl", ["train.labelled_fraction=0.3"], "mine")
    load_space("actionformer", dataset="mine")
    assert [len(ids) for ids in seen] == [3, 9]


@pytest.mark.parametrize("name", OWN)
def test_the_study_of_any_method_can_be_done(folder: Path, name: str) -> None:
    space = load_space(name, dataset="mine")
    store = FeatureStore.open(folder / "mine")
    study = create_study(space, store, folder / "studies")
    assert problems(study, store) == []
    assert read_study(study.directory).space == space


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (search, []),
        (search, ["--dry-run"]),
        (train, []),
        (ablate, ["--out", "ablation", "--variant", "as it is:"]),
    ],
)
def test_without_a_dataset_those_that_are_there_are_named(
    folder: Path, command: ModuleType, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(folder / "other")
    (folder / "no_store").mkdir()
    assert command.main(["lacp", *flags]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "lacp.yaml: dataset: is missing" in told
    assert "give --dataset NAME" in told
    assert f"in {folder} are mine, other, watch" in told


def test_a_dataset_may_be_set_as_any_key(folder: Path) -> None:
    assert load_space("lacp", ["dataset=mine"]) == load_space("lacp", dataset="mine")
    path = str(folder / "mine")
    assert load_space("lacp", dataset=path).dataset == path


def test_what_the_flags_state_is_not_derived(folder: Path) -> None:
    space = load_space("lacp", ["train.batch_size={choice: [2, 4]}", "selection=val",
                                "budget.max_steps=90"], "mine")  # fmt: skip
    assert space.train["batch_size"].args == (2, 4)
    assert space.budget.report_steps == (10, 30, 90)
    keys = {one.key for one in space.derived}
    assert not keys & {"train.batch_size", "budget.max_steps", "selection.metric"}
    with pytest.raises(ConfigError, match="--set train.batch_size=0"):
        load_space("lacp", ["train.batch_size=0"], "mine")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("{}", [], "method: is missing"),
        ("method: lacp\ndatset: mine", [], "did you mean 'dataset'"),
        ("method: lacp\ntrian: {lr: 1}", [], "did you mean 'train'"),
        ("method: lacp\ntrain: {lrr: 1}", [], "did you mean 'lr'"),
        (
            "method: lacp\nbudget: {trials: 2}",
            ["budget.min_steps=5000"],
            "min_steps=5000: budget.min_s",
        ),
    ],
)
def test_a_mistake_in_a_space_without_a_dataset_is_named(
    folder: Path, text: str, settings: list[str], message: str
) -> None:
    (folder / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_space("own.yaml", settings, "mine")
    if "dat" not in message and not settings:
        with pytest.raises(ConfigError, match="is missing|did you mean"):
            load_space("own.yaml")


def test_sections_that_are_empty_are_filled(folder: Path) -> None:
    (folder / "own.yaml").write_text("method: lacp\ntrain:\ndecode:\nbudget: {trials: 2}\n")
    space = load_space("own.yaml", dataset="mine")
    assert space.budget.trials == 2
    assert space.train_fixed["batch_size"] == 4
    (folder / "own.yaml").write_text("method: lacp\n")
    with pytest.raises(ConfigError, match="budget.trials: is missing"):
        load_space("own.yaml", dataset="mine")


def test_a_space_with_a_dataset_derives_nothing(folder: Path) -> None:
    there = load_space("lacp_gtea")
    here = load_space("lacp_gtea", dataset="mine")
    assert here == replace(there, dataset="mine")
    assert not here.derived
    text = "method: lacp\ndataset: mine\n"
    (folder / "half.yaml").write_text(text)
    with pytest.raises(ConfigError, match="budget: is missing"):
        load_space("half.yaml", dataset="mine")


def test_a_study_keeps_what_the_data_gave_and_resumes_without_asking_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(folder, "final.top=1")
    plain = json.loads((study.directory / "study.json").read_text())["space"]
    assert plain["train"]["batch_size"] == 4
    assert plain["budget"]["max_steps"] == study.space.budget.max_steps
    best = study.space.freeze({"lr": 1e-3}, {})
    assert parse_space(best.to_yaml(), name="lacp", source="best.yaml") == best

    def asked(*_: Any) -> Any:
        raise AssertionError("the data was asked again")

    monkeypatch.setattr(adapt, "facts", asked)
    monkeypatch.setattr(fill, "find", asked)
    assert read_study(study.directory).space == study.space
    assert check_space(study, "lacp", "") == []


def test_an_edit_of_a_space_without_a_dataset_is_still_seen(folder: Path) -> None:
    text = (SPACES / "lacp.yaml").read_text()
    (folder / "own.yaml").write_text(text)
    store = FeatureStore.open(folder / "mine")
    study = create_study(
        load_space("own.yaml", dataset="mine"), store, folder / "studies",
        overrides=overrides([], "mine"),
    )  # fmt: skip
    (folder / "own.yaml").write_text(text.replace("train:\n", "train:\n  batch_size: 2\n"))
    with pytest.raises(ConfigError, match="train.batch_size .study: 4, file: 2"):
        check_space(study, "own.yaml", "")


def test_a_dry_run_gives_values_reasons_and_time(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in folder.rglob("*"))
    assert search.main(["lacp", "--dataset", "mine", "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    plan = json.loads(told.out)
    rules = {rule["key"]: rule for rule in plan["rules"]}
    assert rules["train.batch_size"]["value"] == plan["space"]["train"]["batch_size"] == 4
    assert "4" in rules["train.batch_size"]["why"] or "6 videos" in rules["train.batch_size"]["why"]
    assert 0 < plan["time"]["low_s"] < plan["time"]["high_s"]
    line = next(text for text in told.err.splitlines() if text.startswith("time  "))
    assert "trials at a time" in line
    row = next(text for text in told.err.splitlines() if "train.batch_size" in text)
    assert row.split()[1] == "4"
    assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["apl", "apn"])
def test_time_counts_stages_and_needs_no_names_of_classes(folder: Path, name: str) -> None:
    store = FeatureStore.open(folder / "mine")
    study = create_study(load_space(name, dataset="mine"), store, folder / "studies")
    fast, slow = duration.measured(study, "cpu")
    assert 0 < fast.step <= slow.step and fast.report > 0
    assert fast.before <= slow.before
    assert (fast.before > 0) == (methods.load(study.space.method).stage is not None)


def test_measured_steps_have_the_losses_that_begin_with_a_refresh(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "LEARN_S", 0.0)
    store = FeatureStore.open(folder / "mine")
    study = create_study(load_space("lacp", dataset="mine"), store, folder / "studies")
    taken: list[tuple[int, set[str]]] = []
    train_step = Trial.train_step

    def noted(trial: Trial) -> dict[str, torch.Tensor]:
        taken.append((trial.step, set(train_step(trial))))
        return {}

    monkeypatch.setattr(Trial, "train_step", noted)
    duration.measured(study, "cpu")
    measured = taken[-duration.STEPS :]
    assert all({"score", "feature"} <= terms for _, terms in measured)
    assert measured[0][0] % duration.REFRESH == 0 and "score" not in taken[0][1]


def made(folder: Path, *settings: str) -> Study:
    return begin(folder, "budget.trials=9", "budget.max_steps=90", "final.seeds=2", *settings)


FAST = duration.Costs(step=1.0, report=10.0, before=100.0)
SLOW = duration.Costs(step=2.0, report=10.0, before=200.0)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "measured", lambda *_: (FAST, SLOW))


def test_the_range_of_the_time_is_that_of_stopped_and_of_full_trials(
    folder: Path, costs: None
) -> None:
    study = made(folder, "final.top=3", "policy=simple")
    found = duration.duration(study, 2)
    stopped = 9 * (10 + 10) + 3 * (20 + 10) + 1 * (60 + 10)
    low = stopped + 2 * (2 + 3) * (90 + 10) + 100 * (1 + 2 * 2)
    high = 9 * (180 + 3 * 10) + 2 * (2 + 3) * (180 + 10) + 200 * (1 + 2 * 2)
    assert found["low_s"] == pytest.approx(low / 2)
    assert found["high_s"] == pytest.approx(high / 2)
    assert found["text"].startswith(f"{low / 120:.0f} min to {high / 120:.0f} min, 2 trials")


def test_the_budget_of_a_race_is_that_of_full_trials(folder: Path, costs: None) -> None:
    study = made(folder, "final.top=3")
    found = duration.duration(study, 20)  # no more at a time than there are
    low = 9 * (90 + 3 * 10) + 2 * 2 * (90 + 10) + 100 * (study.num_folds + 2)
    assert found["low_s"] == pytest.approx(low / 9)


def test_the_time_on_a_gpu_that_is_not_here_is_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(folder, "resources.gpus_per_worker=1")
    monkeypatch.setattr(duration.torch.cuda, "is_available", lambda: False)
    found = duration.duration(study, 1)
    assert found["text"].startswith("unknown: ")
    assert "low_s" not in found


def test_a_gpu_decides_widths_and_shares(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt.torch.cuda, "is_available", lambda: True)
    space = load_space("apn", dataset="mine")
    assert space.resources.gpus_per_worker == 0.5
    assert space.train_fixed["encoder_layers"] == 2


def test_the_default_of_a_searched_rate_follows_from_the_steps(folder: Path) -> None:
    space = load_space("lacp", ["budget.max_steps=500"], "mine")
    assert space.train["lr"].default == space.train_defaults()["lr"] == 0.2 / 500
    assert space.derived[-2].key == "train.lr.default"
    first = space.first_params()
    assert first is not None and first["lr"] == 0.2 / 500
    stated = load_space("lacp", ["train.lr={loguniform: [1e-5, 1e-2], default: 2e-3}"], "mine")
    assert stated.train["lr"].default == 2e-3
    assert load_space("lacp", ["train.lr=2e-3"], "mine").train_fixed["lr"] == 2e-3
    outside = load_space("lacp", ["train.lr={loguniform: [1e-5, 1e-4]}"], "mine")
    assert outside.train["lr"].default is None
    study = begin(folder, "budget.max_steps=500")
    assert check_space(study, "lacp", "") == []


def test_the_catalog_lists_spaces_without_a_dataset() -> None:
    listed = {space.name: space for space in catalog()}
    assert {name: listed[name].method for name in OWN} == OWN
    assert {listed[name].dataset for name in OWN} == {""}
    assert listed["lacp_gtea"].dataset == "gtea"


def test_the_catalog_reads_spaces_as_a_search_does(folder: Path) -> None:
    text = "method: lacp\ndataset: 7\nbudget: {trials: 2, min_steps: 1, max_steps: 1e3}\n"
    place = folder / "search_spaces"
    place.mkdir(exist_ok=True)
    (place / "lacp_seven.yaml").write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    listed = {space.name: space for space in catalog()}["lacp_seven"]
    assert (listed.dataset, listed.steps) == ("7", 2000)
    assert load_space("lacp_seven").budget.max_steps == 1000
