"""What comes from elsewhere runs no code and leads nowhere else."""

from __future__ import annotations

import ast
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store
from small_study import small_study
from synthetic_study import SyntheticStudy

import ptal_ray
from ptal_ray import search
from ptal_ray.backends.ray.runner import last_reason
from ptal_ray.data.__main__ import main as data_main
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.text import class_embeddings
from ptal_ray.errors import DataError
from ptal_ray.policy.optuna_searcher import JOURNAL, OptunaSearcher
from ptal_ray.reporting.report import write_report
from ptal_ray.storage.place import check_links, inside
from ptal_ray.tracking.tracker import MlflowTracker
from ptal_ray.training.checkpoint import read_checkpoint, write_checkpoint
from ptal_ray.training.decoding import read_scores
from ptal_ray.training.stage_cache import _read as read_stage

pytestmark = pytest.mark.usefixtures("empty_plots")

PACKAGE = Path(ptal_ray.__file__).parent
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
SAFE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}


def suspects(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that could run code out of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if _root(a.name) in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom) and _root(node.module or "") in UNPICKLERS:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Attribute) and node.attr in UNPICKLERS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and (what := _unsafe_call(node)):
            yield node.lineno, what


def _root(name: str) -> str:
    return name.partition(".")[0]


def _unsafe_call(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in ("eval", "exec", "compile", "__import__") else ""
    if not isinstance(node.func, ast.Attribute) or not isinstance(node.func.value, ast.Name):
        return ""
    owner, name = node.func.value.id, node.func.attr
    if (owner, name) in SAFE:
        key, value = SAFE[owner, name]
        given = {k.arg: k.value for k in node.keywords}
        constant = given.get(key)
        safe = isinstance(constant, ast.Constant) and constant.value is value
        return "" if safe else f"{owner}.{name} without {key}={value}"
    loads = owner == "yaml" and name.endswith(("load", "load_all")) and not name.startswith("safe")
    unsafe_loader = owner == "yaml" and name in ("Loader", "FullLoader", "UnsafeLoader")
    return f"{owner}.{name}" if loads or unsafe_loader else ""


def test_nothing_in_the_package_loads_pickles_or_runs_text() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text().splitlines()
        for line, what in suspects(ast.parse(path.read_text())):
            known = path.name == "watch.py" and "io.BytesIO(content)" in lines[line - 1]
            if not known:  # the one pickled file, whose very bytes were hashed
                found.append(f"{path.relative_to(PACKAGE.parent)}:{line} {what}")
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "ray.cloudpickle.loads(b)", "eval('1')",
        "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
        "np.load(f)", "yaml.load(f, Loader=x)", "yaml.unsafe_load(f)",
    ],
)  # fmt: skip
def test_the_walk_finds_what_it_looks_for(code: str) -> None:
    assert list(suspects(ast.parse(code)))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """Something that must never be unpickled."""
    made = Trap(tmp_path / "marker")
    yield made
    assert not made.marker.exists()


def test_the_trap_would_snap(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_checkpoints_scores_and_stages_run_nothing(tmp_path: Path, trap: Trap) -> None:
    path, device = tmp_path / "checkpoint.pt", torch.device("cpu")
    torch.save({"config": "x", "weights": trap}, path)
    with pytest.raises(DataError, match=r"checkpoint\.pt: unreadable checkpoint; delete it"):
        read_checkpoint(path, "x", device)
    path.write_bytes(pickle.dumps(trap))
    with pytest.raises(DataError, match="unreadable checkpoint"):
        read_checkpoint(path, "x", device)
    objects = np.array([trap], dtype=object)
    scores = npz(tmp_path / "scores.npz", ids=np.array(["a"]), **{"0/p": objects})
    with pytest.raises(DataError, match=r"scores\.npz: damaged scores"):
        read_scores(scores)
    stage = tmp_path / "stage.npz"
    npz(stage, ids=np.array([], dtype=np.str_))
    torch.save({"config": "stage", "weights": trap}, stage.with_suffix(".pt"))
    with pytest.raises(DataError, match=r"stage\.pt: unreadable checkpoint"):
        read_stage(stage)
    write_checkpoint(stage.with_suffix(".pt"), "stage", {"weights": {}})
    npz(stage, ids=objects)
    with pytest.raises(DataError, match=r"stage\.npz: damaged scores"):
        read_stage(stage)


def test_feature_files_run_nothing(
    tmp_path: Path, trap: Trap, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "data"))
    np.save(tmp_path / "one.npy", np.array([trap], dtype=object))
    (tmp_path / "two.npy").write_bytes(pickle.dumps(trap))
    for name in ("one", "two"):
        code, said = imported(tmp_path, {name: video()}, capsys)
        assert code == 3
        assert said.startswith("error: ") and f"{name}.npy: not a whole .npy of numbers" in said
    store = FeatureStore.open(make_store(tmp_path / "tiny"))
    with pytest.raises(DataError, match=r"one\.npy: not a \.npy file of numbers"):
        class_embeddings(store, str(tmp_path / "one.npy"))


def test_yaml_runs_nothing(tmp_path: Path, trap: Trap, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    for value in (
        f"!!python/object/apply:os.mkdir ['{trap.marker}']",
        f"[!!python/object/apply:os.mkdir ['{trap.marker}']]",
        "!!python/name:os.system",
    ):
        bad.write_text(f"method: apn\ndataset: watch\ntrain:\n  lr: {value}\n")
        assert search.main([str(bad), "--dry-run"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and "bad.yaml" in line


def test_a_journal_runs_nothing(tmp_path: Path, trap: Trap) -> None:
    study = small_study(tmp_path)
    for content in (pickle.dumps(trap, protocol=0) + b"\n", b'{"op_code": "x"}\n[1, 2]\n'):
        (study.directory / JOURNAL).write_bytes(content)
        with pytest.raises(
            DataError, match=rf"{JOURNAL}: no journal of Optuna .*delete it"
        ) as told:
            OptunaSearcher(study)
        assert told.value.exit_code == 3


def video(**more: Any) -> dict[str, Any]:
    instance = {"segment": [1.0, 3.0], "label": "a"}
    return {"subset": "training", "duration": 8.0, "annotations": [instance]} | more


def imported(
    folder: Path, database: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and error of an import of videos whose features lie in `folder`."""
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    flags = ["--features", str(folder), "--annotations", str(folder / "gt.json")]
    flags += ["--simulate-points", "gaussian", "--fps", "1", "--stride", "1"]
    code = data_main(["import", "mine", *flags])
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    "id",
    ["../../x", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 300],
)
def test_ids_name_no_other_files(
    tmp_path: Path,
    id: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "data"))
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "x.npy", np.zeros((8, 2), np.float32))
    before = sorted(tmp_path.rglob("*"))
    code, said = imported(tmp_path / "features", {id: video()}, capsys)
    assert code == 3
    assert len(said.splitlines()) == 1
    assert said.startswith("error: ") and "an id must not" in said
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "features" / "gt.json"])


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "out/x", "a\0b", "x" * 5000])
def test_paths_stay_in_their_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    assert inside(folder, "final/best/detections.json") == folder / "final/best/detections.json"
    with pytest.raises(DataError, match="study: names "):
        inside(folder, path)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd"])
def test_a_log_names_no_file_elsewhere(tmp_path: Path, path: str) -> None:
    study = SyntheticStudy(tmp_path / "study")
    study.whole()
    log = study.log.path
    first = "final/best_seed0/detections.json"
    log.write_text(log.read_text().replace(first, path))
    for read in (
        lambda: write_report(study.directory, tmp_path / "reports"),
        lambda: MlflowTracker(study.directory, f"sqlite:///{tmp_path}/mlflow.db").start(),
    ):
        with pytest.raises(DataError, match="are outside the study directory"):
            read()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("name", ["../../x", "/x", ".x", "a/b", "x" * 300, ""])
def test_a_report_lies_among_the_reports(tmp_path: Path, name: str) -> None:
    study = SyntheticStudy(tmp_path / "study")
    study.whole()
    log = study.log.path
    log.write_text(log.read_text().replace('"study": "study"', f'"study": "{name}"'))
    with pytest.raises(DataError, match="no name of a study"):
        write_report(study.directory, tmp_path / "there" / "reports")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["events.jsonl", "lock", "trials/00000", "optuna.journal"])
def test_links_that_lead_out_of_a_study_are_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".precious").touch()
    (study.directory / "trials").mkdir()
    (study.directory / name).symlink_to(outside)
    assert search.main(["--resume", str(study.directory)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "which is outside" in line
    assert (outside / ".precious").exists()


def test_links_within_a_study_may_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    check_links(tmp_path)


def test_a_store_has_no_files_but_its_own(tmp_path: Path) -> None:
    path = make_store(tmp_path / "tiny") / "store.json"
    plain = json.loads(path.read_text())
    plain["sizes"]["../../x"] = 1
    path.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"store\.json: damaged"):
        FeatureStore.open(path.parent)


TRACE = """Failure # 1 (occurred at 2026-11-21_19-09-00)
The actor died unexpectedly before finishing this task.
Failure # 2 (occurred at 2026-11-21_19-09-31)
\x1b[36mray::T.train()\x1b[39m (pid=4300, ip=127.0.0.1)
           ^^^^^
  File "trainable.py", line 326, in train
    result = self.step()
             ^^^^^^^^^^^
ValueError: line one
line two
"""


def test_why_a_trial_was_given_up_is_read_as_text() -> None:
    assert last_reason(TRACE) == "ValueError: line one"
    died = TRACE.partition("Failure # 2")[0]
    assert last_reason(died) == "The actor died unexpectedly before finishing this task."
    assert last_reason("") == "its process died"
