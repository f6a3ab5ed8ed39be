from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import re
import signal
import time

import numpy as np
import pyarrow as pa
import pytest
from conftest import make_store

from ptal_ray.data.datasets import data_root, find
from ptal_ray.data.points import no_points
from ptal_ray.data.store import FeatureStore, StoreWriter
from ptal_ray.data.types import Grid, Points, Segments
from ptal_ray.errors import DataError

GRID = Grid(stride_s=0.5, offset_s=0.25)


def segments(*rows):
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    return Segments(
        start_s=columns[0], end_s=columns[1], label=columns[2].astype(int), score=np.ones(len(rows))
    )


def points(*rows):
    return Points(
        time_s=np.array([t for t, _ in rows], float), label=np.array([c for _, c in rows], int)
    )


def writer(path, **changes):
    return StoreWriter(
        path, **({"name": "d", "classes": ("x", "y"), "grid": GRID, "features": "real"} | changes)
    )


def video(**changes):
    return {
        "subset": "train",
        "features": np.arange(20, dtype=np.float32).reshape(5, 4),
        "duration_s": 3.0,
        "annotations": segments((0.5, 1.5, 0), (2, 3, 1)),
        "points": points((2.5, 1), (1.0, 0)),
    } | changes


def write(path, changes=None, **options):
    with writer(path, **options) as store:
        store.add("a", **video(**(changes or {})))
        store.add("b", **video(subset="test", features=np.ones((2, 4))))
    return FeatureStore.open(path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_returns_what_was_written(tmp_path, dtype):
    store = write(tmp_path / "d", dtype=dtype, note="a note")
    assert (store.ids("train"), store.ids("test")) == (("a",), ("b",))
    found = store.video("a")
    np.testing.assert_array_equal(found.features, np.arange(20).reshape(5, 4))
    assert found.features.dtype == dtype == store.dtype
    assert (found.duration_s, found.grid, store.length("a"), store.length("b")) == (3.0, GRID, 5, 2)
    np.testing.assert_array_equal(store.annotations("a").end_s, [1.5, 3])
    np.testing.assert_array_equal(store.annotations("a").score, [1, 1])
    assert (store.info.name, store.info.classes, store.info.feature_dim) == ("d", ("x", "y"), 4)
    assert (store.info.note, store.info.features, store.info.num_classes) == ("a note", "real", 2)
    store.verify()


def test_points_are_ascending_and_a_test_video_has_none(tmp_path):
    store = write(tmp_path / "d")
    np.testing.assert_array_equal(store.points("a").time_s, [1.0, 2.5])
    np.testing.assert_array_equal(store.points("a").label, [0, 1])
    assert len(store.points("b")) == 0 and len(store.annotations("b")) == 2


def test_features_are_a_read_only_view_into_one_record_batch_a_video(tmp_path):
    store = write(tmp_path / "d")
    features = store.video("a").features
    assert not features.flags.owndata and not features.flags.writeable
    with pa.memory_map(str(tmp_path / "d" / "features.arrow")) as file:
        assert pa.ipc.open_file(file).num_record_batches == 2


def test_a_store_pickles_as_its_path(tmp_path):
    store = write(tmp_path / "d")
    store.video("a")
    data = pickle.dumps(store)
    assert len(data) < 500
    np.testing.assert_array_equal(pickle.loads(data).video("a").features, store.video("a").features)


def test_a_store_replaced_while_in_use_is_noticed(tmp_path):
    store = write(tmp_path / "d")
    data = pickle.dumps(store)
    write(tmp_path / "d", {"duration_s": 4.0}, replace=True)
    for use in (lambda: pickle.loads(data), lambda: store.video("a"), lambda: store.points("a")):
        with pytest.raises(DataError, match="replaced while in use"):
            use()


def test_unknown_videos_and_subsets_are_named(tmp_path):
    store = write(tmp_path / "d")
    with pytest.raises(DataError, match=r"no video 'c' \(of 2 videos\)"):
        store.video("c")
    with pytest.raises(DataError, match="'val': allowed are train, test"):
        store.ids("val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.array([[1, np.nan]])}, r"features\[0, 1\] is nan, the first of 1"),
        ({"features": np.array([[1, -np.inf]])}, r"is -inf"),
        ({"features": np.full((2, 2), 1e6)}, "1e\\+06 overflows float16.*float32"),
        ({"features": np.ones(3)}, r"shape \(3,\); \(T, D\)"),
        ({"features": np.ones((0, 3))}, r"shape \(0, 3\)"),
        ({"features": np.array([["a"]])}, "numbers are needed"),
        ({"subset": "val"}, "subset 'val'; allowed: train, test"),
        ({"duration_s": 0.0}, "duration 0.0 s"),
        ({"duration_s": float("nan")}, "duration nan s; a positive"),
        ({"annotations": segments((2, 2, 0))}, r"instance 0 is \[2, 2\] s; 0 <= start < end"),
        ({"annotations": segments((-1, 2, 0))}, r"instance 0 is \[-1, 2\]"),
        ({"annotations": segments((1, 2, 0), (1, np.nan, 0))}, r"instance 1 is \[1, nan\]"),
        ({"annotations": segments((1, 2, 2))}, r"instance 0 has label 2; labels are 0..1"),
        ({"points": points((3.5, 0))}, r"point 0 at 3.5 s; it must lie in the video, \[0, 3\] s"),
        ({"points": points((-0.5, 0))}, "point 0 at -0.5 s"),
        ({"points": points((1, -1))}, "point 0 has label -1"),
    ],
)
def test_a_wrong_video_is_refused_with_its_name_and_value(tmp_path, changes, message):
    with pytest.raises(DataError, match="video a.*" + message), writer(tmp_path / "d") as store:
        store.add("a", **video(**changes))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("id", ["", "a/b", "a\\b", "../a", ".hidden"])
def test_an_id_that_cannot_name_a_file_is_refused(tmp_path, id):
    with pytest.raises(DataError, match=re.escape(repr(id))), writer(tmp_path / "d") as store:
        store.add(id, **video())


def test_videos_must_agree(tmp_path):
    with (
        pytest.raises(DataError, match=r"video b: .*\(5, 3\), but D = 4"),
        writer(tmp_path / "d") as store,
    ):
        store.add("a", **video())
        store.add("b", **video(features=np.ones((5, 3))))
    with pytest.raises(DataError, match="video a: added twice"), writer(tmp_path / "d") as store:
        store.add("a", **video())
        store.add("a", **video())


def test_a_store_must_be_sensible(tmp_path):
    with pytest.raises(DataError, match="no video was added"), writer(tmp_path / "d"):
        pass
    with pytest.raises(DataError, match="float64.*float16 and float32"):
        writer(tmp_path / "d", dtype="float64")
    with pytest.raises(DataError, match="must be unique"):
        writer(tmp_path / "d", classes=("x", "x"))


def test_an_instance_may_reach_beyond_its_video_as_published_ones_do(tmp_path):
    store = write(tmp_path / "d", {"annotations": segments((2, 3.5, 0))})
    np.testing.assert_array_equal(store.annotations("a").end_s, [3.5])


@pytest.mark.parametrize("name", ["features", "videos", "annotations", "points"])
def test_a_truncated_file_is_noticed_when_opened(tmp_path, name):
    file = write(tmp_path / "d").path / f"{name}.arrow"
    size = file.stat().st_size
    os.truncate(file, size - 1)
    with pytest.raises(DataError, match=rf"{name}.arrow: {size - 1} bytes, {size} expected"):
        FeatureStore.open(tmp_path / "d")
    file.unlink()
    with pytest.raises(DataError, match=rf"{name}.arrow: no bytes"):
        FeatureStore.open(tmp_path / "d")


def test_another_schema_version_and_no_store_are_refused(tmp_path):
    path = write(tmp_path / "d").path
    description = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(description | {"schema_version": 0}))
    with pytest.raises(DataError, match="schema version 0, this version reads 1 to 2"):
        FeatureStore.open(path)
    for damaged in ('{"schema', "[]", '{"schema_version": 1}'):
        (path / "store.json").write_text(damaged)
        with pytest.raises(DataError, match=r"store\.json: damaged; import it again"):
            FeatureStore.open(path)
    with pytest.raises(DataError, match="not a feature store"):
        FeatureStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["features", "videos", "points"])
def test_a_file_of_other_content_is_named(tmp_path, name):
    file = write(tmp_path / "d").path / f"{name}.arrow"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=rf"{name}\.arrow: damaged; import it again"):
        FeatureStore.open(tmp_path / "d").verify()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "d"
    with pytest.raises(DataError, match="file/d: cannot be written .*another place"), writer(place):
        pass
    with (
        pytest.raises(DataError, match=r"cannot be written \(No space left"),
        writer(tmp_path / "d"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_hash_depends_on_all_content_and_nothing_else(tmp_path):
    same = write(tmp_path / "d").info.content_hash
    assert write(tmp_path / "e").info.content_hash == same
    changes = [
        {"features": np.arange(20, dtype=np.float32).reshape(5, 4) + np.eye(5, 4)},
        {"duration_s": 3.5},
        {"annotations": segments((0.5, 1.5, 1), (2, 3, 1))},
        {"annotations": segments((0.5, 1.6, 0), (2, 3, 1))},
        {"points": points((2.5, 1), (1.1, 0))},
        {"subset": "test"},
    ]
    hashes = {write(tmp_path / f"c{n}", c).info.content_hash for n, c in enumerate(changes)}
    hashes |= {write(tmp_path / "n", note="n").info.content_hash, same}
    assert len(hashes) == len(changes) + 2


def test_verify_notices_a_changed_byte(tmp_path):
    store = write(tmp_path / "d")
    file = store.path / "features.arrow"
    data = bytearray(file.read_bytes())
    at = data.index(np.arange(4, dtype=np.float16).tobytes())
    data[at + 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="does not match its hash"):
        FeatureStore.open(store.path).verify()


def test_an_error_leaves_nothing_and_keeps_the_old_store(tmp_path):
    before = write(tmp_path / "d").info.content_hash
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "d", replace=True) as store:
        store.add("a", **video())
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert FeatureStore.open(tmp_path / "d").info.content_hash == before


def test_an_existing_store_is_replaced_only_when_asked(tmp_path):
    write(tmp_path / "d")
    with pytest.raises(DataError, match="already exists; pass --replace"), writer(tmp_path / "d"):
        pass
    assert write(tmp_path / "d", {"duration_s": 4.0}, replace=True).duration_s("a") == 4.0
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "annotations.arrow", "features.arrow", "points.arrow", "store.json", "videos.arrow",
    ]  # fmt: skip


def _start_writing(path, ready):
    with writer(path) as store:
        store.add("a", **video())
        ready.set()
        time.sleep(60)


def test_a_killed_writer_leaves_a_hidden_folder_that_the_next_one_removes(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_start_writing, args=(tmp_path / "d", ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match="another process is writing it"), writer(tmp_path / "d"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [p.name for p in tmp_path.iterdir()] == [".d.partial"]
    with pytest.raises(DataError, match="not a feature store"):
        FeatureStore.open(tmp_path / "d")
    write(tmp_path / "d").verify()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_replacement_killed_between_its_renames_is_undone(tmp_path):
    before = write(tmp_path / "d").info.content_hash
    os.rename(tmp_path / "d", tmp_path / ".d.old")
    with pytest.raises(DataError, match="already exists"), writer(tmp_path / "d"):
        pass
    assert FeatureStore.open(tmp_path / "d").info.content_hash == before


def test_a_large_store_opens_at_once(tmp_path):
    feature, nothing = np.ones((1, 2), np.float16), no_points()
    with writer(tmp_path / "d") as store:
        for n in range(5000):
            store.add(f"v{n}", **video(features=feature, points=nothing))
    start = time.perf_counter()
    store = FeatureStore.open(tmp_path / "d")
    assert len(store.ids("train")) == 5000 and store.video("v4999").features.shape == (1, 2)
    assert len(store.annotations("v4999")) == 2
    assert time.perf_counter() - start < 0.5


def test_find_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    make_store(tmp_path / "tiny")
    assert find("tiny").path == tmp_path / "tiny" == find(str(tmp_path / "tiny")).path
    with pytest.raises(
        DataError, match="'gtea_scores' is not imported.*data import gtea_scores.*--dataset watch"
    ):
        find("gtea_scores")
    with pytest.raises(DataError, match="there is no feature store"):
        find(str(tmp_path / "absent"))


def test_data_root_is_the_user_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("PTAL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "ptal_ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root().parts[-2:] == (".cache", "ptal_ray")
