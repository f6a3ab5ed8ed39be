"""Files and feature stores at s3:// addresses: whole or not at all, once per machine, checked."""

from __future__ import annotations

import json
import multiprocessing
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_store
from object_store import BUCKET, SECRET, ObjectStore

from ptal_ray.data import __main__ as data
from ptal_ray.data.copies import local_copy
from ptal_ray.data.datasets import find, origin, present
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DataError, StorageError
from ptal_ray.storage.folder import Folder, cache_root

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def shelf(shelf: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An address of this test alone, where PTAL_DATA is."""
    monkeypatch.setenv("PTAL_DATA", str(shelf))
    return shelf


def put(path: Path, source: Folder) -> Path:
    for file in path.iterdir():
        (source / file.name).push(file)
    return path


@pytest.mark.parametrize("remote", [True, False])
def test_files_are_written_read_listed_and_removed(
    remote: bool, shelf: Folder, tmp_path: Path
) -> None:
    shelf = shelf if remote else Folder.parse(str(tmp_path / "folder"))
    assert shelf.remote == remote
    assert (shelf / "a").read() is None
    assert not (shelf / "a").pull(tmp_path / "a")
    assert shelf.names() == []
    (shelf / "a").write(b"one")
    (tmp_path / "big").write_bytes(np.arange(5_000_000).tobytes())
    (shelf / "deep/er/b").push(tmp_path / "big")
    assert (shelf / "a").read() == b"one"
    assert (shelf / "deep/er/b").pull(tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == (tmp_path / "big").read_bytes()
    assert sorted(shelf.names()) == ["a", "deep/er/b"]
    assert sorted(shelf.names(below=False)) == ["a", "deep"]
    (shelf / "a").remove()
    (shelf / "a").remove()
    assert shelf.names() == ["deep/er/b"]
    (shelf / "empty").write(b"")
    assert (shelf / "empty").read() == b""
    assert (shelf / "empty").pull(tmp_path / "empty")


def test_files_go_between_an_address_and_its_copy_here(shelf: Folder) -> None:
    there = shelf / "run"
    there.here.mkdir(parents=True)
    (there.here / "a").write_bytes(b"1")
    there.send("a", "b")  # there is no b yet
    assert there.names() == ["a"]
    (there / "a").write(b"2")
    (there / "b").write(b"3")
    there.bring("a", "b", "c")
    assert {p.name: p.read_bytes() for p in there.here.iterdir()} == {"a": b"2", "b": b"3"}


def test_a_folder_of_this_machine_is_its_own_copy(tmp_path: Path) -> None:
    place = Folder.parse(f"{tmp_path}/x/")
    (place / "a").write(b"1")
    place.send("a", "b")
    place.bring("a", "b")
    assert (place.here, place.name, str(place.parent)) == (tmp_path / "x", "x", str(tmp_path))
    assert place.names() == ["a"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/a: cannot be written .*check the folder and its"):
        (Folder.parse(str(tmp_path / "file")) / "a").write(b"1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"s3://id:{SECRET}@bucket/x", "must not contain credentials or options"),
        (f"s3://bucket/x?secret_key={SECRET}", "must not contain credentials or options"),
        ("s3:///x", "not an address; write s3://bucket/prefix"),
        ("s3://bucket/../x", "not an address"),
        (f"s3:/id:{SECRET}@bucket/x", "must not contain credentials or options"),
        ("gs://bucket/x", "allowed are a path or s3://bucket/prefix"),
    ],
)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        Folder.parse(text)
    assert SECRET not in str(error.value)


def test_addresses_are_paths() -> None:
    root = Folder.parse("s3://bucket/a//b/")
    assert str(root) == "s3://bucket/a/b"
    assert (root.name, str(root.parent), str(root / "c")) == ("b", "s3://bucket/a", f"{root}/c")
    assert str(Folder.parse("s3://bucket") / "x") == "s3://bucket/x"
    assert (root / "c").here == root.here / "c"
    assert root.here.is_relative_to(cache_root())
    assert str(Folder.parse("s3://bucket").parent) == "s3://bucket"


def test_errors_are_one_line_without_secrets(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=r"s3://nobody/x: cannot be written .* bucket does not"):
        Folder.parse("s3://nobody/x").write(b"1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("PTAL_DATA", f"s3://{BUCKET}/x")
    with pytest.raises(DataError, match=rf"PTAL_DATA: s3://{BUCKET}/x/tiny/store.json: ") as error:
        find("tiny")
    assert re.search("Failed to connect.*check the address, AWS_ENDPOINT_URL", str(error.value))
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_a_pull_that_is_cut_off_leaves_nothing(
    shelf: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "a").write(b"old")
    assert (shelf / "a").pull(tmp_path / "there" / "a")
    (shelf / "a").write(b"newer")

    def cut(self: Folder) -> Iterator[bytes]:
        yield b"ne"
        raise StorageError("the connection broke")

    monkeypatch.setattr(Folder, "_chunks", cut)
    with pytest.raises(StorageError, match="broke"):
        (shelf / "a").pull(tmp_path / "there" / "a")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "there").iterdir()] == [("a", b"old")]


def test_a_store_is_found_by_name_and_validated(
    shelf: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=f"'thumos14' is not imported .{shelf}/thumos14 is missing"):
        find("thumos14")
    put(make_store(tmp_path / "tiny"), shelf / "tiny")
    store = find("tiny")
    assert store.path.is_relative_to(tmp_path / "here")
    assert store.info == FeatureStore.open(tmp_path / "tiny").info
    assert find(f"{shelf}/tiny").path == store.path
    assert find(str(tmp_path / "tiny")).path == tmp_path / "tiny"
    assert (origin("tiny"), origin("x/tiny")) == (f"{shelf}/tiny", "")
    assert data.main(["validate", "tiny"]) == 0
    assert f"{store.path}: sound" in capsys.readouterr().out


def _find(begin: Any) -> None:
    begin.wait()
    find("tiny").verify()


def test_processes_share_one_copy(server: ObjectStore, shelf: Folder, tmp_path: Path) -> None:
    put(make_store(tmp_path / "tiny", train=40), shelf / "tiny")
    spawn = multiprocessing.get_context("spawn")
    begin = spawn.Barrier(2)
    processes = [spawn.Process(target=_find, args=(begin,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [p.exitcode for p in processes] == [0, 0]
    _find(spawn.Barrier(1))
    assert server.count(f"GET /{BUCKET}/{shelf.name}/tiny/features.arrow") == 1


def test_a_corrupt_download_is_not_kept(shelf: Folder, tmp_path: Path) -> None:
    good = put(make_store(tmp_path / "tiny"), shelf / "tiny")
    bad = bytearray((good / "features.arrow").read_bytes())
    bad[len(bad) // 2] ^= 1
    (shelf / "tiny/features.arrow").write(bytes(bad))
    with pytest.raises(DataError, match=f"{shelf}/tiny: the local copy is corrupt and was"):
        find("tiny")
    (shelf / "tiny/features.arrow").write(bytes(bad[:-100]))
    with pytest.raises(DataError, match=r"features\.arrow: .* bytes, .* expected"):
        find("tiny")
    (shelf / "tiny/points.arrow").remove()
    with pytest.raises(DataError, match=r"tiny/points\.arrow: missing"):
        find("tiny")
    assert [p.suffix for p in (shelf / "tiny").here.iterdir()] == [".lock"]
    put(good, shelf / "tiny")
    find("tiny").verify()
    (shelf / "tiny/store.json").write(b'{"info": {"content_hash": "../../x"}}')
    with pytest.raises(DataError, match=r"store\.json: damaged"):
        find("tiny")


def test_a_changed_store_is_another_copy(shelf: Folder, tmp_path: Path) -> None:
    put(make_store(tmp_path / "one"), shelf / "tiny")
    first = find("tiny")
    put(make_store(tmp_path / "two", seed=1), shelf / "tiny")
    second = find("tiny")
    assert first.path != second.path
    first.verify()
    second.verify()
    assert local_copy(shelf / "tiny", first.info.content_hash) == first.path
    (first.path / "features.arrow").unlink()  # a damaged copy is replaced, or its loss is told
    with pytest.raises(DataError, match="its content is .* it was replaced since"):
        local_copy(shelf / "tiny", first.info.content_hash)
    (second.path / "videos.arrow").write_bytes(b"")
    find("tiny").verify()


def test_another_machine_finds_the_data_of_a_study(
    shelf: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(make_store(tmp_path / "tiny"), shelf / "tiny")
    began = find("tiny")
    known = (str(began.path), origin("tiny"), began.info.content_hash)
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    assert present(*known).is_relative_to(tmp_path / "elsewhere")
    put(make_store(tmp_path / "other", seed=1), shelf / "tiny")
    assert FeatureStore.open(present(*known)).info == began.info  # the copy made in time
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "third"))
    host = re.escape(socket.gethostname())
    with pytest.raises(DataError, match=f"^on {host}: {shelf}/tiny: its content is .*start again$"):
        present(*known)
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))  # a name is looked up where this machine has it
    assert present("/gone/tiny", "tiny", began.info.content_hash) == tmp_path / "tiny"
    with pytest.raises(DataError, match=f"on {host}: /gone/x: .*not a feature store"):
        present("/gone/x", "", began.info.content_hash)
    with pytest.raises(DataError, match=f"on {host}: .*/other: its content changed since the stu"):
        present(str(tmp_path / "other"), "other", began.info.content_hash)


def test_imports_go_to_the_address(
    shelf: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "features"
    features.mkdir()
    annotation = {"segment": [2.0, 5.0], "label": "A"}
    videos = {}
    for name, subset in (("v1", "train"), ("v2", "test")):
        np.save(features / f"{name}.npy", np.eye(12, 4, dtype=np.float32))
        videos[name] = {"duration": 12.0, "subset": subset, "annotations": [annotation]}
    (tmp_path / "gt.json").write_text(json.dumps({"database": videos}))
    words = ["import", "mine", "--features", str(features), "--annotations",
             str(tmp_path / "gt.json"), "--simulate-points", "uniform", "--fps", "1",
             "--stride", "1"]  # fmt: skip
    assert data.main(words) == 0
    assert f"stored    {shelf}/mine" in capsys.readouterr().out
    assert data.main(["info", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subsets"]["train"]["points"] == 1
    assert data.main(words) == 3
    assert f"{shelf}/mine: already exists; pass --replace" in capsys.readouterr().err
    assert data.main([*words, "--replace", "--note", "again"]) == 0
    assert find("mine").info.note.startswith("again")
    assert sorted(p.suffix for p in (shelf / "mine").here.iterdir()) == ["", "", ".lock", ".lock"]


def test_watch_is_assembled_at_the_address(
    server: ObjectStore, shelf: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find("watch")
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "elsewhere"))
    assert find("watch").info == first.info
    assert server.count(f"PUT /{BUCKET}/{shelf.name}/watch/store.json") == 1
