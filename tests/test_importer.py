from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from conftest import shared
from import_layout import Layout, entry, small_layout

from ptal_ray.data.importing.importer import examine, import_dataset, plan_import
from ptal_ray.data.importing.page import review
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


@pytest.fixture
def layout(tmp_path):
    return small_layout(tmp_path)


def test_the_plain_layout_is_imported(layout):
    plan, store = layout.run(window=3.0)
    assert plan.remarks == {} and plan.problems == ()
    assert (store.ids("train"), store.ids("test")) == (("a", "b"), ("c",))
    assert store.info.classes == ("close", "open") and store.info.features == "real"
    assert (store.info.grid.stride_s, store.info.grid.offset_s) == (0.5, 0.5)
    expected = np.load(layout.path / "features" / "a.npy")
    np.testing.assert_array_equal(store.video("a").features, expected)
    np.testing.assert_array_equal(store.points("a").time_s, [2.0, 7.0])
    np.testing.assert_array_equal(store.annotations("a").start_s, [1, 5])
    np.testing.assert_array_equal(store.annotations("a").label, [1, 0])
    store.verify()


def test_the_answer_in_the_points_file_changes_nothing(layout):
    _, first = layout.run()
    layout.lines = ["class,video_id,point", "open,a,20", "close,a,70", "close,b,30"]
    _, second = layout.run()
    assert first.info.content_hash == second.info.content_hash


@pytest.mark.parametrize(
    ("subsets", "train", "test"),
    [
        (("training", "training", "validation"), "ab", "c"),  # ActivityNet, GTEA, BEOID
        (("Validation", "Validation", "Test"), "ab", "c"),  # THUMOS14
        (("train", "test", "test"), "a", "bc"),
    ],
)
def test_subset_names_of_the_benchmarks(layout, subsets, train, test):
    for id, subset in zip("abc", subsets, strict=True):
        layout.database[id]["subset"] = subset
    _, store = layout.run(points=None, simulated_points="gaussian")
    assert ("".join(store.ids("train")), "".join(store.ids("test"))) == (train, test)


def test_a_testing_subset_without_annotations_is_left_out_and_counted(layout):
    layout.database["d"] = entry("testing")
    plan, store = layout.run()
    assert "d" not in store.ids("test")
    assert plan.remarks == {"videos of no chosen subset": 1}
    layout.database["d"] = entry("testing", (1, 2, "open"))
    layout.refused("training, validation and test are all annotated; .*--train-list")


def test_lists_override_subsets(layout):
    (layout.path / "train.txt").write_text("c\n")
    (layout.path / "test.txt").write_text("v_a\n")
    lists = {"train": layout.path / "train.txt", "test": layout.path / "test.txt"}
    plan, store = layout.run(lists=lists, points=None, simulated_points="uniform")
    assert (store.ids("train"), store.ids("test")) == (("c",), ("a",))
    assert plan.remarks["videos of no chosen subset"] == 1
    (layout.path / "test.txt").write_text("a\nzz\nc")
    problems = plan_import(layout.source(lists=lists)).problems
    assert "test.txt:2: " in problems[0] and "has no video zz" in problems[0]
    assert "test.txt:3: video c is on the other list too" in problems[1]


def test_ids_with_and_without_v_agree(layout):
    layout.lines = ["class,video_id,point", "open,v_a,20", "close,v_b,30"]
    (layout.path / "features" / "a.npy").rename(layout.path / "features" / "v_a.npy")
    _, store = layout.run()
    np.testing.assert_array_equal(store.points("b").time_s, [3.0])


def test_points_are_simulated_by_video_with_a_seed(layout):
    simulated = {"points": None, "simulated_points": "gaussian"}
    _, store = layout.run(**simulated)
    first = store.points("b").time_s
    assert store.info.note == "points simulated: gaussian, seed 0"
    layout.database = dict(reversed(layout.database.items()))
    _, store = layout.run(**simulated)
    np.testing.assert_array_equal(store.points("b").time_s, first)
    _, store = layout.run(**simulated, seed=1, note="mine")
    assert store.points("b").time_s != first
    assert store.info.note == "mine; points simulated: gaussian, seed 1"


def test_the_rate_of_points_comes_from_the_annotations_or_a_table(layout):
    layout.refused("points.csv:2: the frame rate of a is unknown; pass --point-fps", point_fps=None)
    for id in "abc":
        layout.database[id]["fps"] = 20
    _, store = layout.run(point_fps=None, allow_points=True)
    np.testing.assert_array_equal(store.points("a").time_s, [1.0, 3.5])
    table = layout.path / "info.csv"
    table.write_text("video,fps\nv_a,10\nb,30")
    _, store = layout.run(point_fps=table, allow_points=True)
    assert (store.points("a").time_s[0], store.points("b").time_s[0]) == (2.0, 1.0)
    table.write_text("id,rate\na,10")
    layout.refused("info.csv: no column", point_fps=table)


def test_published_oddities_are_counted_not_hidden(layout):
    layout.database["a"]["annotations"][1]["segment"] = [5, 11]
    layout.database["d"] = entry("training", (1, 2, "open"))
    layout.lines += ["open,0,0,c,20", "open,0,0,a,102"]
    layout.save("a", np.random.default_rng(0).random((19, 4)))
    layout.lines.append("close,0,0,a,96")
    plan, store = layout.run(allow_points=True)
    assert plan.remarks == {
        "points in no instance of their class (80.0 % lie in one)": 1,
        "instances that reach beyond their video, kept as annotated": 1,
        "points of test videos, left out": 1,
        "points less than a snippet after the end of their video, clamped": 1,
        "points after the last snippet, which training moves to it": 2,
        "training videos without a point, left out": 1,
    }
    assert store.annotations("a").end_s[1] == 11 and store.points("a").time_s[-1] == 10
    assert "d" not in store.ids("train")


def test_instances_that_end_before_they_start(layout):
    layout.database["b"]["annotations"].append({"segment": [4, 4], "label": "open"})
    text = layout.refused(r"gt.json: video b, instance 1: \[4, 4\] s; 0 <= start < end")
    assert "--drop-invalid" in text
    plan, store = layout.run(drop_invalid=True)
    assert plan.remarks == {"instances whose end is not after their start": 1}
    assert len(store.annotations("b")) == 1


def test_a_missing_feature_file(layout):
    (layout.path / "features" / "b.npy").unlink()
    layout.refused(r"b\.npy: feature file is missing; add it.*\(video b, train split\)")


def test_short_and_long_features(layout):
    layout.save("a", np.random.default_rng(0).random((19, 4)))
    layout.save("b", np.random.default_rng(0).random((21, 4)))
    plan_import(layout.source())
    layout.save("a", np.random.default_rng(0).random((17, 4)))
    layout.refused(
        r"1 of 3 videos do not cover.*a\.npy: 17 snippets cover 8.5 s of 10.0 s.*--allow-length"
    )
    layout.refused("b.npy: 21 snippets cover 21.0 s of 10.0 s.*check --fps", stride=2.0)
    plan, _ = layout.run(allow_length=True)
    assert plan.remarks == {
        "videos whose features cover another time, allowed (worst 0.85 times)": 1
    }


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(layout, value):
    features = np.ones((20, 4))
    features[3, 2] = value
    layout.save("b", features)
    layout.refused(rf"video b: features\[3, 2\] is {value}, the first of 1; .*finite")


def test_features_that_disagree_in_dimension(layout):
    layout.save("b", np.ones((20, 5)))
    layout.refused(r"b\.npy: shape \(20, 5\); \(T, 4\) is needed")
    layout.save("b", np.ones(20))
    layout.refused(r"b\.npy: shape \(20,\); \(T, 4\)")


def test_feature_files_that_hold_no_numbers(layout):
    layout.save("b", np.array([{"a": 1}], dtype=object))
    layout.refused(r"b\.npy: not a whole \.npy of numbers; extract it again")
    layout.save("b", np.array([["a"]]))
    layout.refused(r"b\.npy: not an array of numbers")
    (layout.path / "features" / "b.npy").write_bytes(b"")
    layout.refused(r"b\.npy: not a whole \.npy")
    layout.save("b", np.ones((20, 4)))
    data = (layout.path / "features" / "b.npy").read_bytes()
    (layout.path / "features" / "b.npy").write_bytes(data[:-8])
    layout.refused(r"b\.npy: not a whole \.npy")


def test_a_point_outside_its_video(layout):
    layout.lines.append("open,1,2,a,500")
    layout.refused(
        r"points.csv:5: point 500 is at 50.00 s, outside video a of 10.00 s.*--point-fps"
    )


def test_unknown_classes(layout):
    layout.lines.append("opn,1,2,a,20")
    layout.refused("points.csv:5: video a: class 'opn' is unknown; did you mean 'open'")


def test_points_alone_are_imported_with_those_of_the_test_videos(layout):
    layout.lines.append("open,0,40,c,20")
    _, store = layout.run()
    assert len(store.points("c")) == 0  # its segments judge it
    for item in layout.database.values():
        item["annotations"] = []
    wrong = plan_import(layout.source()).problems
    assert wrong and all("list all class names in the JSON" in text for text in wrong[:4])
    source = layout.source(annotations=layout.path / "points_only.json")
    named = {"database": layout.database, "classes": ["close", "open"]}
    source.annotations.write_text(json.dumps(named))
    assert plan_import(source).problems == ()
    import_dataset(source, layout.out, dtype="float32", replace=True)
    store = FeatureStore.open(layout.out)
    assert [len(store.points(id)) for id in "abc"] == [2, 1, 1]
    assert not any(len(store.annotations(id)) for id in "abc")
    assert store.points("c").time_s.tolist() == [2.0]


def test_an_unknown_class_in_the_annotations(layout):
    layout.source()
    content = {"classes": ["open"], "database": layout.database}
    layout.source = lambda **changes: Layout.source(layout, annotations=path, **changes)
    path = layout.path / "own.json"
    path.write_text(json.dumps(content))
    layout.refused("own.json: video a, instance 1: label 'close' is not among the file's classes")


def test_dropping_every_class_names_the_flag(layout):
    layout.refused(
        r"gt\.json: --drop-label leaves no class: the file has close, open; keep one",
        drop_labels=frozenset({"open", "close", "other"}),
    )


def test_an_empty_training_split(layout):
    for id in "ab":
        del layout.database[id]
    layout.lines = layout.lines[:1]
    layout.refused("points.csv: holds no point; every training video needs at least one")


def test_a_test_split_that_is_asked_for_and_empty(layout):
    for name, ids in (("train", "a\nb"), ("test", "")):
        (layout.path / name).write_text(ids)
    lists = {name: layout.path / name for name in ("train", "test")}
    layout.refused("test", lists=lists)


def test_a_dataset_without_a_test_split(layout):
    del layout.database["c"]
    plan, store = layout.run()
    assert (store.ids("train"), store.ids("test")) == (("a", "b"), ())
    assert store.info.note == "no test split"
    said = "training videos and no test split; a search reports cross-validated numbers; "
    assert plan.remarks == {f"{said}no test set is kept apart": 2}
    assert review(store)[1] == plan.remarks


@pytest.mark.parametrize("id", ["x/y", "../a", ".a"])
def test_ids_that_are_paths(layout, id):
    layout.database[id] = entry("training", (1, 2, "open"))
    layout.refused(f"video '{id}': an id must not")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": None}, "video b: duration None; a positive number"),
        ({"duration": -1}, "video b: duration -1; a positive number"),
        ({"duration": "long"}, "video b: duration 'long'; a positive number"),
        ({"annotations": 7}, "video b: annotations are 7; a list"),
        (
            {"annotations": [{"segment": [1, 2], "label": ["open"]}]},
            r"video b, instance 0: label \['open'\] is not among",
        ),
        ({"subset": "dev"}, "video b: subset 'dev'; allowed are training, validation and test"),
        (
            {"annotations": [{"label": "open"}]},
            r"video b, instance 0: .*\"segment\": \[start, end\]",
        ),
        ({"annotations": None}, "video b: annotations are None; a list"),
        (
            {"annotations": [{"segment": [1, "x"], "label": "open"}]},
            r"\[1, 'x'\]; two numbers of seconds",
        ),
        (
            {"annotations": [{"segment": [12, 13], "label": "open"}]},
            "1 of 4 instances start behind",
        ),
    ],
)
def test_wrong_annotations(layout, change, message):
    layout.database["b"] |= change
    layout.refused(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", 'no object "database"'), ('{"database": {"a": 1}}', "no object")],
)
def test_a_file_of_another_layout(layout, text, message):
    source = layout.source()
    source.annotations.write_text(text)
    with pytest.raises(DataError, match="gt.json: " + message):
        plan_import(source)
    with pytest.raises(DataError, match="absent.json: cannot be read"):
        plan_import(dataclasses.replace(source, annotations=layout.path / "absent.json"))


def test_an_import_says_how_many_problems_and_validate_lists_them(layout):
    (layout.path / "features" / "a.npy").unlink()
    layout.save("b", np.full((20, 4), np.nan))
    layout.lines.append("opn,1,2,a,20")
    layout.refused(r"class 'opn'.*\(and 2 more: run validate with the same flags\)")
    plan = examine(layout.source())
    problems = plan.problems
    assert len(plan.videos) == 3 and len(problems) == 3
    assert "opn" in problems[0] and "a.npy" in problems[1] and "is nan" in problems[2]


def test_activitynet_annotations_are_read_as_published():
    path = shared("data/annotations/ActivityNet1.3-BMN/anet13_gt_activitynet_format.json")
    from ptal_ray.data.importing.annotations import read_annotations

    found = read_annotations(path, drop_invalid=True)
    subsets = [video.subset for video in found.videos]
    assert (subsets.count("train"), subsets.count("test")) == (9649, 4728)
    assert len(found.classes) == 200 and found.problems == ()
    assert found.left_out == {
        "videos of no chosen subset": 4851,
        "instances whose end is not after their start": 12,
    }
