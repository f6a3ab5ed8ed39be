"""Stores of simulated features: what they hold, and what their features do not depend on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared

from ptal_ray.data import simulate as simulate_module
from ptal_ray.data.importing.annotations import AnnotatedVideo
from ptal_ray.data.recipe import Recipe
from ptal_ray.data.simulate import STRIDE_S, Published, choose, simulate
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError

ALLOWED = Published(allow_points=True)
CLASSES = ("dive", "jump", "throw")


# --- stores -----------------------------------------------------------------------------------


def write_annotations(path: Path, count: int = 40, **more: Any) -> Path:
    """`count` videos of 20-60 s, every fifth in the test subset, 1-4 instances each."""
    rng = np.random.default_rng(0)
    database = {}
    for n in range(count):
        duration = float(rng.uniform(20, 60))
        starts = np.sort(rng.uniform(0, duration - 6, rng.integers(1, 5)))
        items = [
            {"segment": [float(s), float(s + rng.uniform(1, 6))], "label": CLASSES[(n + k) % 3]}
            for k, s in enumerate(starts)
        ]
        subset = "validation" if n % 5 == 4 else "training"
        database[f"v{n:02d}"] = {
            "subset": subset, "duration": duration, "annotations": items, **more
        }  # fmt: skip
    path.write_text(json.dumps({"database": database}))
    return path


def run(annotations: Path, out: Path, **more: Any) -> FeatureStore:
    arguments: dict[str, Any] = {"points_csv": None, "dim": 8, "workers": 1, "replace": False}
    return FeatureStore.open(simulate("thumos14", annotations, out=out, **(arguments | more)))


def ids(store: FeatureStore) -> tuple[str, ...]:
    return store.ids("train") + store.ids("test")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureStore]:
    folder = tmp_path_factory.mktemp("simulated")
    annotations = write_annotations(folder / "gt.json", fps=30)
    return annotations, run(annotations, folder / "whole")


def assert_same_videos(some: FeatureStore, all: FeatureStore) -> None:
    for id in ids(some):
        np.testing.assert_array_equal(some.video(id).features, all.video(id).features)
        np.testing.assert_array_equal(some.points(id).time_s, all.points(id).time_s)


def test_a_store_says_what_it_is(whole: tuple[Path, FeatureStore]) -> None:
    annotations, store = whole
    store.verify()
    assert store.info.name == "thumos14" and store.info.classes == CLASSES
    assert store.info.features == "simulated-v1 D=8 standard seed=0"
    assert store.info.grid.stride_s == 0.64 and store.info.grid.offset_s == 0
    assert store.info.note.startswith("simulated features on real annotations; ")
    assert (len(store.ids("train")), len(store.ids("test"))) == (32, 8)
    truth = json.loads(annotations.read_text())["database"]
    for id in ids(store):
        assert store.length(id) == math.ceil(truth[id]["duration"] / 0.64)
        assert store.annotations(id).start_s.tolist() == [
            a["segment"][0] for a in truth[id]["annotations"]
        ]


def test_without_a_csv_every_training_instance_gets_a_point_inside(
    whole: tuple[Path, FeatureStore],
) -> None:
    store = whole[1]
    for id in store.ids("train"):
        instances, points = store.annotations(id), store.points(id)
        assert len(points) == len(instances)
        order = np.argsort(points.time_s)
        assert (order == np.arange(len(order))).all()
        assert sorted(points.label) == sorted(instances.label)
    assert not any(len(store.points(id)) for id in store.ids("test"))
    total = sum(len(store.points(id)) for id in store.ids("train"))
    assert f"{total} points: 0 published, {total} gaussian" in store.info.note


def test_features_do_not_depend_on_workers(
    whole: tuple[Path, FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_module, "CHUNK_BYTES", 2_000)  # several chunks a worker
    store = run(whole[0], tmp_path / "two", workers=2)
    assert ids(store) == ids(whole[1])
    assert_same_videos(store, whole[1])
    assert store.info.content_hash == whole[1].info.content_hash


def test_features_do_not_depend_on_order_or_limit_or_lists(
    whole: tuple[Path, FeatureStore], tmp_path: Path
) -> None:
    content = json.loads(whole[0].read_text())
    content["database"] = dict(reversed(content["database"].items()))
    (tmp_path / "gt.json").write_text(json.dumps(content))
    assert_same_videos(run(tmp_path / "gt.json", tmp_path / "reversed"), whole[1])
    limited = run(whole[0], tmp_path / "limited", limit=10)
    assert (len(limited.ids("train")), len(limited.ids("test"))) == (8, 2)
    assert "10 of 40 videos, stratified by class" in limited.info.note
    assert_same_videos(limited, whole[1])
    (tmp_path / "train.txt").write_text("v04\nv07\n")
    (tmp_path / "test.txt").write_text("v_v01\n")  # ActivityNet lists write the prefix
    lists = {"train_list": tmp_path / "train.txt", "test_list": tmp_path / "test.txt"}
    listed = run(whole[0], tmp_path / "listed", **lists)
    assert listed.ids("train") == ("v04", "v07") and listed.ids("test") == ("v01",)
    np.testing.assert_array_equal(listed.video("v01").features, whole[1].video("v01").features)
    assert len(listed.points("v04")) and not len(listed.points("v01"))
    fewer = run(whole[0], tmp_path / "fewer", exclude=frozenset({"v01", "v_v04", "other"}))
    assert set(ids(whole[1])) - set(ids(fewer)) == {"v01", "v04"}
    assert_same_videos(fewer, whole[1])


def test_the_seed_changes_everything_and_is_recorded(
    whole: tuple[Path, FeatureStore], tmp_path: Path
) -> None:
    store = run(whole[0], tmp_path / "other", seed=1, difficulty="easy")
    assert store.info.features == "simulated-v1 D=8 easy seed=1"
    assert not np.array_equal(store.video("v00").features, whole[1].video("v00").features)
    assert not np.array_equal(store.points("v00").time_s, whole[1].points("v00").time_s)


def one_instance(label: int) -> Segments:
    return Segments(
        start_s=np.array([1.0]), end_s=np.array([2.0]), label=np.array([label]), score=np.ones(1)
    )


def annotated(subset: str, label: int, count: int) -> list[AnnotatedVideo]:
    return [
        AnnotatedVideo(
            id=f"{subset}{label}_{n}", subset=subset, duration_s=10.0,
            instances=one_instance(label),
        )
        for n in range(count)
    ]  # fmt: skip


def test_a_limit_keeps_the_shares_of_subsets_and_classes() -> None:
    videos = [
        *annotated("train", 0, 100), *annotated("train", 1, 40), *annotated("train", 2, 10),
        *annotated("test", 0, 30), *annotated("test", 1, 20),
    ]  # fmt: skip
    recipe = Recipe(num_classes=3)
    kept = choose(videos, 40, recipe)
    found = {key: sum(v.id.startswith(key) for v in kept) for key in
             ("train0", "train1", "train2", "test0", "test1")}  # fmt: skip
    expected = {"train0": 20, "train1": 8, "train2": 2, "test0": 6, "test1": 4}
    assert all(abs(found[key] - n) <= 1 for key, n in expected.items()), found
    assert len(kept) == 40
    assert [videos.index(v) for v in kept] == sorted(videos.index(v) for v in kept)
    assert kept == choose(videos, 40, recipe)
    assert kept != choose(videos, 40, Recipe(num_classes=3, seed=1))
    assert choose(videos, 1000, recipe) == videos


def test_many_classes_with_few_videos_each_keep_about_the_limit() -> None:
    videos = [v for label in range(200) for v in annotated("train", label, 7)]
    kept = choose(videos, 300, Recipe(num_classes=200))
    assert len(kept) == 300
    counts = np.bincount([v.instances.label[0] for v in kept], minlength=200)
    assert counts.min() == 1 and counts.max() == 2


# --- points -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difficulty": "medium"}, "difficulty 'medium'; allowed are easy, standard, hard"),
        ({"dim": 0}, "dim 0; must be at least 1"),
        ({"limit": 1}, "limit 1; must be at least 2"),
        ({"workers": 0}, "workers 0; must be at least 1"),
        ({"seed": -1}, "seed -1; must be at least 0"),
        ({"stride_s": 0.0}, "stride 0.0 s; must be a positive number"),
        ({"train_list": Path("x")}, "pass both --train-list and --test-list"),
    ],
)
def test_wrong_arguments_are_config_errors(
    whole: tuple[Path, FeatureStore], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(whole[0], tmp_path / "store", **change)


def test_an_unknown_dataset_needs_a_stride(
    whole: tuple[Path, FeatureStore], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"points_csv": None, "workers": 1, "replace": False, "dim": 4}
    with pytest.raises(
        ConfigError, match="no known stride for 'mine'; pass --stride-s, or use thu"
    ):
        simulate("mine", whole[0], out=tmp_path / "a", **arguments)
    out = simulate("mine", whole[0], out=tmp_path / "b", stride_s=2.0, **arguments)
    assert FeatureStore.open(out).info.grid.stride_s == 2.0


def test_wrong_annotations_are_data_errors(tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json", duration=-1)
    with pytest.raises(DataError, match="duration -1; a positive"):
        run(annotations, tmp_path / "store")
    (tmp_path / "none.json").write_text('{"database": {}}')
    with pytest.raises(DataError, match="no annotated video"):
        run(tmp_path / "none.json", tmp_path / "store")


# --- the real annotations ---------------------------------------------------------------------


def test_thumos14_with_its_lists_and_points(tmp_path: Path) -> None:
    folder = shared("data/annotations/THUMOS14")
    store = run(
        folder / "gt_full.json", tmp_path / "store", dim=2,
        points_csv=folder / "point_labels/point_gaussian.csv",
        train_list=folder / "split_train.txt", test_list=folder / "split_test.txt",
    )  # fmt: skip
    assert (len(store.ids("train")), len(store.ids("test"))) == (200, 210)
    assert store.info.num_classes == 20
    assert "3007 points: 3003 published, 4 gaussian" in store.info.note
    assert STRIDE_S["thumos14"] == store.info.grid.stride_s == 0.64


@pytest.mark.parametrize(("name", "stride"), [("GTEA", 16 / 15), ("BEOID", 16 / 30)])
def test_egocentric_datasets_keep_their_own_stride(
    tmp_path: Path, name: str, stride: float
) -> None:
    folder = shared(f"data/annotations/{name}")
    out = simulate(
        name.lower(), folder / "gt_full.json", out=tmp_path / "store", dim=2, workers=1,
        points_csv=folder / "point_labels/point_gaussian.csv", replace=False,
    )  # fmt: skip
    store = FeatureStore.open(out)
    assert store.info.grid.stride_s == stride
    assert ", 0 gaussian" in store.info.note


def test_every_published_activitynet_point_lies_in_an_instance_of_its_class(
    tmp_path: Path,
) -> None:
    annotations = shared("data/annotations/ActivityNet1.3-BMN/anet13_gt_activitynet_format.json")
    points = shared("data/annotations/ActivityNet1.3/point_labels/point_gaussian.csv")
    out = simulate(
        "anet13", annotations, points_csv=points, dim=1, out=tmp_path / "store", limit=600,
        workers=1, replace=False,
    )  # fmt: skip
    store = FeatureStore.open(out)
    assert store.info.num_classes == 200 and "600 of 14377 videos" in store.info.note
    for id in store.ids("train"):
        instances, found = store.annotations(id), store.points(id)
        assert len(found) == len(instances)
        inside = (instances.start_s[:, None] - 0.1 <= found.time_s) & (
            found.time_s <= instances.end_s[:, None] + 0.1
        )
        assert (inside & (instances.label[:, None] == found.label)).any(axis=0).all()


def test_a_split_without_an_instance_is_a_data_error(tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json")
    content = json.loads(annotations.read_text())
    for entry in content["database"].values():
        if entry["subset"] == "validation":
            entry["annotations"] = [{"segment": [-1, 2], "label": "dive"}]
    annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the test split has 8 videos and no instance"):
        run(annotations, tmp_path / "store")
