"""Nothing that this package did not write is deleted or overwritten, whatever the flags say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store
from test_store import write

from ptal_ray import search
from ptal_ray.data import staging
from ptal_ray.data.__main__ import main
from ptal_ray.data.datasets import find
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.folder import Folder

NAME = "apn_demo-20260801-120000"


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path):
    """The flags of an import and the words of a simulation, by command."""
    (tmp_path / "f").mkdir()
    segment = {"segment": [2.0, 5.0], "label": "A"}
    videos = {}
    for name, subset in (("v1", "train"), ("v2", "test")):
        np.save(tmp_path / "f" / f"{name}.npy", np.eye(12, 4, dtype=np.float32))
        videos[name] = {"duration": 12.0, "subset": subset, "annotations": [segment]}
    truth = tmp_path / "gt.json"
    truth.write_text(json.dumps({"database": videos}))
    files = ["--features", tmp_path / "f", "--annotations", truth]
    rates = ["--simulate-points", "uniform", "--fps", "1", "--stride", "1"]
    return {
        "import": [*files, *rates],
        "validate": [*files, *rates],
        "simulate": ["--annotations", truth, "--stride-s", "1", "--workers", "1", "--dim", "4"],
    }


def run(*words):
    return main([str(word) for word in words])


def tree(folder):
    """What lies in a folder: (kind, content) by path, links unfollowed."""
    return {
        str(p.relative_to(folder)): ("link", os.readlink(p)) if p.is_symlink()
        else ("folder", b"") if p.is_dir() else ("file", p.read_bytes())
        for p in folder.rglob("*")
    }  # fmt: skip


def _folder(path):
    path.mkdir()
    (path / "thesis.tex").write_text("mine")


def _notes_beside_a_store(path):
    write(path)
    (path / "notes.txt").write_text("mine")


def _folder_in_a_store(path):
    write(path)
    (path / "features.arrow").unlink()
    (path / "features.arrow").mkdir()


def _another_store_json(path):
    path.mkdir()
    (path / "store.json").write_text('{"shop": "mine"}')
    (path / "features.arrow").write_text("mine")


def _link_to_a_store(path):
    write(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


TARGETS = [
    _folder, _notes_beside_a_store, _folder_in_a_store, _another_store_json, _link_to_a_store,
    Path.mkdir, lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["import", "simulate"])
@pytest.mark.parametrize("flags", [[], ["--replace"]])
@pytest.mark.parametrize("make", TARGETS)
def test_what_is_no_store_stays(command, flags, make, source, tmp_path, capsys):
    place = tmp_path / "place"
    place.mkdir()
    make(place / "out")
    before = tree(place)
    assert run(command, "x", *source[command], "--out", place / "out", *flags) == 3
    assert tree(place) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is not replaced" in error and "--replace" not in error


@pytest.mark.parametrize("command", ["import", "simulate"])
@pytest.mark.parametrize("out", [".", "sub/..", "/"])
def test_a_folder_one_works_in_stays(command, out, source, tmp_path, monkeypatch, capsys):
    place = tmp_path / "place"
    _folder(place)
    (place / "sub").mkdir()
    monkeypatch.chdir(place)
    before = tree(place)
    assert run(command, "x", *source[command], "--out", out, "--replace") == 3
    assert tree(place) == before and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("schema", [0, 1])
def test_a_store_of_any_version_is_replaced(schema, source, data_folder):
    assert run("import", "x", *source["import"]) == 0
    path = data_folder / "x" / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": schema}))
    (data_folder / "x" / f"text_{'0' * 16}.npy").write_text("a cache of ours")
    assert run("import", "x", *source["import"]) == 3
    assert run("import", "x", *source["import"], "--replace") == 0
    assert [p.name for p in data_folder.iterdir()] == ["x"] and len(
        list(path.parent.iterdir())
    ) == 5


def test_files_that_come_during_the_work_stay(tmp_path, source, monkeypatch, data_folder):
    assert run("import", "x", *source["import"]) == 0

    def meanwhile(done, total):
        (data_folder / "x" / "notes.txt").write_text("mine")

    monkeypatch.setattr("ptal_ray.data.commands._progress", meanwhile)
    assert run("import", "x", *source["import"], "--replace") == 3
    assert (data_folder / "x" / "notes.txt").read_text() == "mine"
    assert [p.name for p in data_folder.iterdir()] == ["x"]


NAMES = [
    ".",
    "..",
    "../x",
    "a/b",
    "/abs",
    ".hidden",
    "",
    " ",
    "a b",
    "a\nb",
    "x" * 101,
    "~",
    "a\\b",
]


@pytest.mark.parametrize("command", ["import", "validate", "simulate"])
@pytest.mark.parametrize("name", [*NAMES, "s3://bucket/x"])
def test_a_name_is_a_plain_word(command, name, source, data_folder, tmp_path, capsys):
    write(data_folder / "other")
    before = tree(tmp_path)
    flags = [] if command == "validate" else ["--replace"]
    assert run(command, name, *source[command], *flags) == 2
    error = capsys.readouterr().err
    assert tree(tmp_path) == before
    assert error.startswith("error: dataset ") and error.count("\n") == 1 and "allowed" in error


@pytest.mark.parametrize("name", ["x", "thumos14", "A-1_b.c", "Größe", "x" * 100])
def test_plain_words_are_names(name, source, data_folder):
    assert run("import", name, *source["import"]) == 0
    assert find(name).path == data_folder / name


@pytest.mark.parametrize("name", [n for n in NAMES if "/" not in n])
def test_a_text_that_is_no_name_and_no_path_is_refused_where_stores_are_read(name, data_folder):
    write(data_folder / "other")
    for use in (find, lambda n: search.main(["apn_watch", "--dry-run", "--dataset", n])):
        if use is find:
            with pytest.raises(ConfigError, match="not a dataset name"):
                use(name)
        else:
            assert use(name) == 2


def test_a_path_of_a_store_is_taken_and_a_wrong_one_is_explained(tmp_path, capsys):
    path = make_store(tmp_path / "tiny")
    assert run("info", path) == 0
    for command in ("info", "validate"):
        assert run(command, "a/b") == 3
    error = capsys.readouterr().err
    assert error.count("a/b: there is no feature store; a text with / is taken for the folder") == 2


def test_an_address_is_no_folder_to_write_to(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run("import", "x", *source["import"], "--out", "s3://bucket/x") == 2
    assert tree(tmp_path) == before and "set PTAL_DATA" in capsys.readouterr().err


def _points_of_others(path):
    path.write_text("class,video_id,point,start_frame\nA,v1,3,2\n")


@pytest.mark.parametrize("make", [_points_of_others, Path.mkdir, lambda p: p.symlink_to("gt.json")])
def test_points_replace_only_a_file_of_their_own(make, tmp_path, capsys):
    store, out = make_store(tmp_path / "tiny"), tmp_path / "p.csv"
    (tmp_path / "gt.json").write_text("mine")
    make(out)
    before = tree(tmp_path)
    for flags in ([], ["--replace"]):
        assert run("points", store, "--out", out, *flags) == 3
        assert "--replace" not in capsys.readouterr().err
    assert tree(tmp_path) == before
    out.rmdir() if out.is_dir() and not out.is_symlink() else out.unlink()
    assert [run("points", store, "--out", out, *f) for f in ([], [], ["--replace"])] == [0, 3, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gt.json", "p.csv", "tiny"]


KILLED = """
import os, signal, sys
from ptal_ray.data import staging
from ptal_ray.data.store import FeatureStore
from test_store import video, writer
phase, path = sys.argv[1:]
rename, exchange = os.rename, staging._exchange
def die(): os.kill(os.getpid(), signal.SIGKILL)
def renamed(*names):
    global left
    rename(*names)
    left -= 1
    if not left: die()
left = {"between renames": 1, "after renames": 2}.get(phase, 0)
os.rename = renamed
if left: staging._exchange = lambda *names: False
if phase == "before": staging._put = lambda *names: die()
if phase == "after exchange": staging._exchange = lambda *names: exchange(*names) and die()
with writer(path, replace=True) as store:
    store.add("a", **video(duration_s=9.0))
    if phase == "writing": die()
"""
PHASES = {"writing": 3.0, "before": 3.0, "after exchange": 9.0, "between renames": 3.0,
          "after renames": 9.0}  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
def test_a_kill_leaves_the_old_store_or_the_new_one(phase, tmp_path):
    write(tmp_path / "d")
    if not staging._exchange(tmp_path / "d", tmp_path / "d") and phase == "after exchange":
        pytest.skip("this file system cannot exchange two folders")
    path = [*sys.path, str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, phase, str(tmp_path / "d")],
        env=os.environ | {"PYTHONPATH": ":".join(path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    if phase != "between renames":  # there the next writer brings the old one back
        assert FeatureStore.open(tmp_path / "d").duration_s("a") == PHASES[phase]
    write(tmp_path / "e")  # another name in the same place cleans up
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "e"]
    store = FeatureStore.open(tmp_path / "d")
    store.verify()
    assert store.duration_s("a") == PHASES[phase]


def test_hidden_folders_of_others_stay(tmp_path):
    for name in (".d.partial", ".d.old", ".e.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    (tmp_path / ".e.partial" / "lock").touch()
    before = tree(tmp_path)
    with pytest.raises(
        DataError, match=r"\.d\.partial/thesis\.tex: was not written by this program"
    ):
        write(tmp_path / "d")
    assert tree(tmp_path) == before
    write(tmp_path / "f")
    shutil.rmtree(tmp_path / "f")
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("files", [
    {"thesis.tex": b"mine"}, {"store.json": b'{"shop": 1}'}, {"features.arrow": b"mine"},
    {"deep/er/thesis.tex": b"mine"},
])  # fmt: skip
def test_objects_of_others_stay(files, shelf: Folder, source, monkeypatch, capsys):
    monkeypatch.setenv("PTAL_DATA", str(shelf))
    for name, data in files.items():
        (shelf / "x" / name).write(data)
    for flags in ([], ["--replace"]):
        assert run("import", "x", *source["import"], *flags) == 3
        error = capsys.readouterr().err
        assert "is not replaced" in error and "--replace" not in error
    assert {name: (shelf / "x" / name).read() for name in (shelf / "x").names()} == files


@pytest.mark.usefixtures("machine")
def test_an_address_holds_the_old_store_until_the_new_one_is_whole(
    shelf: Folder, source, monkeypatch, machine
):
    monkeypatch.setenv("PTAL_DATA", str(shelf))
    assert run("import", "x", *source["import"]) == 0
    before, names = find("x").info, sorted((shelf / "x").names())
    push, again = Folder.push, [*source["import"], "--replace", "--note", "again"]

    def interrupted(self, path):
        if self.name == "points.arrow":
            raise KeyboardInterrupt
        push(self, path)

    monkeypatch.setattr(Folder, "push", interrupted)
    assert run("import", "x", *again) == 130
    assert sorted((shelf / "x").names()) == names
    monkeypatch.setattr(Folder, "push", push)
    (shelf / "x" / ("0" * 16) / "points.arrow").write(b"of a killed process")
    (shelf / "x").here.joinpath(".upload-dead").mkdir()
    monkeypatch.setenv("PTAL_CACHE", str(machine.with_name("other")))
    assert find("x").info == before
    monkeypatch.setenv("PTAL_CACHE", str(machine))
    assert run("import", "x", *again) == 0
    assert find("x").info.note.startswith("again") and len((shelf / "x").names()) == 5
    assert not list((shelf / "x").here.glob(".upload-*"))
