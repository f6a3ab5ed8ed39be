"""What a command says of a study that it continues takes effect, or is said not to."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import make_store
from small_study import small_space

from ptal_ray import search
from ptal_ray.data.store import FeatureStore
from ptal_ray.space.space import load_space
from ptal_ray.study.continuing import differences, overrides
from ptal_ray.study.event_types import TrialStart
from ptal_ray.study.events import EventLog
from ptal_ray.study.study import Study, create_study, read_study


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a space small.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_store(tmp_path / "tiny", train=9)
    make_store(tmp_path / "other", train=9)
    (tmp_path / "small.yaml").write_text(small_space().to_yaml())
    return tmp_path


def begin(folder: Path, settings: list[str], dataset: str | None = None) -> Study:
    space = load_space("small.yaml", settings, dataset)
    store = FeatureStore.open(folder / space.dataset)
    given = overrides(settings, dataset)
    return create_study(space, store, folder / "studies", overrides=given)


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "small.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


FORMS = [["small.yaml", "--resume"], ["--resume", "small.yaml"], ["--resume", "./small.yaml"],
         ["small.yaml", "--resume", "STUDY"], ["--resume", "STUDY", "small.yaml"]]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_edited_space_is_refused_and_the_way_on_is_named(
    folder: Path, form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study = begin(folder, [])
    words = [word.replace("STUDY", f"studies/{study.name}") for word in form]
    assert search.main([*words, "--dry-run"]) == 0
    assert not [line for line in capsys.readouterr().err.splitlines() if "small.yaml" in line]
    edit(folder, "max_steps: 40", "max_steps: 80")
    edit(folder, "loguniform: [0.001, 0.01]", "loguniform: [0.01, 0.1]")
    edit(folder, "train:\n", "train:\n  dropout: 0.5\n")
    assert search.main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert 'train.lr (study: {"loguniform": [0.001, 0.01]}, file: {"loguniform": [0.01, 0.1]})' in (
        told
    )
    assert "budget.max_steps (study: 40, file: 80)" in told
    assert "train.dropout (study: not set, file: 0.5)" in told
    assert "selection" not in told and "remove --resume" in told
    command = told.partition("to continue it, run: ")[2].partition(";")[0]
    assert search.main([*shlex.split(command)[3:], "--dry-run"]) == 0
    assert read_study(study.directory) == study


def test_what_set_and_dataset_changed_at_the_start_is_no_edit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begin(folder, ["dataset=none", "train.lr=0.002", "final.top=1"], "other")
    assert study.space.dataset == "other"
    assert read_study(study.directory).overrides == (
        "train.lr=0.002", "final.top=1", 'dataset="other"'
    )  # fmt: skip
    assert search.main(["small.yaml", "--resume", "--dry-run"]) == 0
    edit(folder, "max_steps: 40", "max_steps: 50")
    assert search.main(["small.yaml", "--resume"]) == 2
    told = capsys.readouterr().err
    assert "budget.max_steps" in told and "train.lr" not in told and "dataset" not in told


def test_a_space_that_is_gone_or_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(folder, [])
    (folder / "small.yaml").write_text("method: [")
    assert search.main(["small.yaml", "--resume"]) == 2
    told = capsys.readouterr().err
    assert "not YAML" in told and "to continue it, run: python -m ptal_ray.search --resume" in told
    (folder / "small.yaml").unlink()
    assert search.main(["small.yaml", "--resume", "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "note: small.yaml: no such search space; the study uses the space stored in it" in told


def test_the_space_of_another_study_is_an_edit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begin(folder, [])
    assert search.main(["potloc_watch", "--resume", f"studies/{study.name}"]) == 2
    assert f'method (study: "{study.space.method}", file: "potloc")' in capsys.readouterr().err


def test_a_file_name_that_is_no_study_name_is_found_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "small.yaml").rename(folder / "a (1)+é.yaml")
    space = load_space("a (1)+é.yaml")
    made = create_study(space, FeatureStore.open(folder / "tiny"), folder / "studies")
    assert search.main(["a (1)+é.yaml", "--resume", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == str(made.directory)
    assert search.main(["a (1)+é.yaml", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"].endswith("/a_1_é-<time>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.lr=1"], "--set: a resumed study keeps its own; leave it out, or start"),
        (["--dataset", "other"], "--dataset: a resumed study"),
        (["--seed", "0"], "--seed: a resumed study"),
        (["--searcher", "tpe"], "--searcher: a resumed study"),
        (["--scheduler", "none"], "--scheduler: a resumed study"),
        (["--policy", "race"], "--policy: a resumed study"),
        (["--protocol", "sealed"], "--protocol: a resumed study"),
        (["--points", "human"], "--points: a resumed study"),
        (
            ["--storage", "elsewhere"],
            "--storage elsewhere: the study is in .*/studies and cannot be moved",
        ),
        (["--storage", "s3://b/c"], "--storage s3://b/c: the study is in"),
        (["--num-trials", "2"], "--num-trials 2: 3 trials of this study have already started"),
    ],
)
def test_flags_that_contradict_the_study(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begin(folder, [])
    for number in range(3):
        EventLog(study.events).append(TrialStart(trial=number, params={}, from_step=0))
    before = sorted(folder.rglob("*"))
    assert search.main(["--resume", f"studies/{study.name}", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert re.search(message, told), told
    assert sorted(folder.rglob("*")) == before


def test_flags_that_may_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = begin(folder, ["train.lr=0.002"])
    words = ["--resume", study.name, "--storage", "studies", "--dry-run", "--json"]
    for asked, trials in ((1, 1), (2, 2), (9, 2)):  # weight_decay has two values
        assert search.main([*words, "--num-trials", str(asked), "--time-budget", "9s"]) == 0
        told = capsys.readouterr()
        plan = json.loads(told.out)
        assert (plan["num_trials"], plan["time_budget_s"]) == (trials, 9)
        assert ("9 trials were requested" in told.err) == (asked > trials)


def test_spaces_that_agree_do_not_differ(folder: Path) -> None:
    own = load_space("small.yaml")
    assert differences(own, own) == ""
    assert differences(own, load_space("small.yaml", ["final={top: 1}"])) == (
        "final.top (study: 2, file: 1), final.seeds (study: 2, file: 3)"
    )
