"""What is wrong or odd in a data set is told, by `import` and `validate` alike."""

from __future__ import annotations

import json
from unicodedata import normalize

import numpy as np
import pytest
from test_importer import Layout, entry

from ptal_ray.data.__main__ import main
from ptal_ray.data.importing.importer import examine, plan_import
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Points, Segments
from ptal_ray.evaluate import main as evaluate

NFC, NFD = normalize("NFC", "café"), normalize("NFD", "café")


@pytest.fixture
def layout(tmp_path):
    """Two training videos and a test video at 2 fps."""
    database = {
        "a": entry("training", (1, 3, "open"), (5, 9, "close")),
        "b": entry("training", (2, 4, "close")),
        "c": entry("validation", (0, 4, "open")),
    }
    lines = ["class,video_id,point", "open,a,20", "close,a,70", "close,b,30"]
    made = Layout(tmp_path, database, lines)
    (tmp_path / "features").mkdir()
    for seed, id in enumerate(database):
        made.save(id, np.random.default_rng(seed).random((20, 4)).astype(np.float32))
    return made


def words(layout, *more):
    layout.source()
    flags = {
        "--features": "features", "--annotations": "gt.json", "--points": "points.csv",
    }  # fmt: skip
    files = [text for flag, name in flags.items() for text in (flag, str(layout.path / name))]
    return [*files, "--fps", "2", "--stride", "1", "--point-fps", "10", *more]


def segments(*rows):
    start, end, label = np.array(rows, np.float64).reshape(-1, 3).T
    return Segments(
        start_s=start, end_s=end, label=label.astype(np.int64), score=np.ones(len(start))
    )


NO_NUMBERS = ["0:05", "1,5", "", "1_0", "nan", None, True, [1], {}, float("nan"), float("inf")]


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_times_that_are_no_numbers_are_never_dropped(layout, value, drop):
    for segment in ([value, 7], [1, value]):
        layout.database["b"]["annotations"][0]["segment"] = segment
        text = layout.refused("video b, instance 0: .*two numbers of seconds", drop_invalid=drop)
        assert repr(value) in text


def test_a_number_of_any_size_is_read(layout):
    layout.database["b"]["annotations"][0]["segment"] = [1, 10**400]
    layout.refused("two numbers of seconds are needed")
    layout.database["b"]["annotations"][0]["segment"] = ["1.5", " 4e0 "]
    assert layout.run()[1].annotations("b").start_s == 1.5


def test_what_is_dropped_has_its_own_reason(layout):
    layout.database["a"]["annotations"] += [
        {"segment": [s, e], "label": "open"} for s, e in ((-1, 2), (-3, -4), (4, 4), (5, 2), (6, 5))
    ]
    for number, reason in enumerate(["-1, 2", "-3, -4", "4, 4", "5, 2", "6, 5"], start=2):
        assert any(
            f"instance {number}: [{reason}] s" in p for p in examine(layout.source()).problems
        )
    plan, _ = layout.run(drop_invalid=True)
    assert plan.remarks == {
        "instances whose start is negative": 2,
        "instances whose end is not after their start": 3,
    }


@pytest.mark.parametrize("subset", ["train", "test"])
def test_a_split_left_without_an_instance(layout, subset):
    for id in "ab" if subset == "train" else "c":
        for item in layout.database[id]["annotations"]:
            item["segment"] = [4, 4]
    videos = 2 if subset == "train" else 1
    layout.refused(f"the {subset} split has {videos} videos and no inst", drop_invalid=True)


def test_a_test_split_without_annotations_is_imported_with_a_remark(layout):
    layout.database["c"]["annotations"] = []
    plan, store = layout.run()
    assert store.ids("test") == ("c",)
    reason = "splits without an instance; mAP cannot be computed on them"
    assert plan.remarks[reason] == 1 and plan.examples[reason] == ["test: 1 videos"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("duration", True, "duration True; a positive number"),
        ("duration", "10,0", "duration '10,0'; a positive number"),
        ("duration", float("inf"), "duration inf; a positive number"),
        ("fps", "thirty", "video b: fps 'thirty'; a number is needed, or no fps"),
        ("fps", True, "video b: fps True; a number"),
    ],
)
def test_other_fields_that_are_no_numbers(layout, field, value, message):
    layout.database["b"][field] = value
    layout.refused(message, drop_invalid=True)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (0, "label 0 is not a name; write the name of the class, in quotes"),
        (1.0, "label 1.0 is not a name"),
        ("", "label '' is empty; a class name is needed"),
        ("  ", "label '  ' is empty"),
        (None, "label None is not among"),
        ("Open", "labels 'Open' and 'open' differ by case or spaces alone; write them alike"),
        ("open ", "labels 'open' and 'open ' differ by case or spaces alone"),
        ("op en", "labels 'op en' and 'open' differ"),
        ("open\n", r"label 'open\\n' holds a line end or another control character; remove it"),
        ("\ud83dopen", r"label '\\ud83dopen' holds"),  # half of a character, which no file can hold
    ],
)
def test_labels_that_name_no_class(layout, label, message):
    layout.database["b"]["annotations"].append({"segment": [5, 6], "label": label})
    layout.refused(message)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], '"classes" is an empty list; list all class names, or leave "classes" out'),
        ({"open": 0}, "\"classes\" is {'open': 0}; list all"),
        ([0, 1], '"classes" holds 0; names are needed'),
        (["open", "close", ""], "\"classes\" holds ''; names are needed"),
        (["open", "close", "x\n"], "\"classes\" holds 'x\\n'; names are needed on one line"),
        (["open", "close", "open"], "\"classes\" holds 'open' twice"),
        (["Open", "close"], "label 'open' is not among the file's classes; did you mean 'Open'?"),
    ],
)
def test_lists_of_classes_that_are_wrong(layout, classes, message):
    source = layout.source()
    source.annotations.write_text(json.dumps({"classes": classes, "database": layout.database}))
    problems = examine(source).problems
    assert message in problems[0]
    assert not any("is not among" in p for p in problems[1:] if "Open" not in message)


def test_names_that_are_alike_and_listed_are_told(layout):
    source = layout.source()
    listed = {"classes": ["open", "Open", "close"], "database": layout.database}
    source.annotations.write_text(json.dumps(listed))
    plan = examine(source)
    assert not plan.problems
    assert plan.examples["classes that differ only in case or spaces"] == ["'open' and 'Open'"]
    assert plan.examples["classes without an instance"] == ["Open"]


def test_classes_that_cannot_be_learned_are_told(layout):
    layout.database["c"]["annotations"].append({"segment": [5, 6], "label": "stir"})
    layout.database["b"]["annotations"].append({"segment": [5, 6], "label": "pour"})
    plan, _ = layout.run()
    told = {kind.split(";")[0]: names for kind, names in plan.examples.items()}
    assert told == {
        "classes without a training point": ["pour"],
        "classes that are only in the test split": ["stir"],
    }


def test_instances_and_points_that_are_there_twice_are_told(layout):
    layout.database["b"]["annotations"] *= 2
    layout.lines += layout.lines[1:]
    plan, store = layout.run()
    assert plan.remarks == {
        "duplicate points, left out": 3,
        "duplicate instances, kept as annotated": 1,
    }
    assert len(store.points("a")) == 2 and len(store.annotations("b")) == 2
    kind = "duplicate instances, kept as annotated"
    assert plan.examples[kind] == ["video b: close at 2, 4 s"]


def test_a_video_twice_in_a_file_stops_import_and_evaluation(layout, capsys):
    source = layout.source()
    text = source.annotations.read_text()
    again = text.replace('"c": ', '"a": {"subset": "training", "duration": 10.0}, "c": ')
    source.annotations.write_text(again)
    with pytest.raises(Exception, match='gt.json: duplicate video a in "database"'):
        plan_import(source)
    good, twice = layout.path / "good.json", layout.path / "pred.json"
    good.write_text(text)
    twice.write_text('{"results": {"a": [], "c": [], "a": []}}')
    assert evaluate([str(source.annotations), str(twice), "--subset", "training"]) == 3
    assert evaluate([str(good), str(twice), "--subset", "training"]) == 3
    told = capsys.readouterr().err.splitlines()
    assert 'gt.json: duplicate video a in "database"' in told[0]
    assert 'pred.json: duplicate video a in "results"' in told[1]


@pytest.mark.parametrize("forms", [(NFC, NFD), (NFD, NFC)])
def test_unicode_forms_agree_everywhere(layout, forms):
    in_json, elsewhere = forms
    layout.database = {
        in_json if id == "a" else id: entry | {
            "annotations": [
                item | {"label": item["label"].replace("open", in_json)}
                for item in entry["annotations"]
            ]
        }
        for id, entry in layout.database.items()
    }  # fmt: skip
    layout.lines = [line.replace("open,a", f"{elsewhere},{elsewhere}") for line in layout.lines]
    layout.lines = [line.replace(",a,", f",{elsewhere},") for line in layout.lines]
    (layout.path / "features" / "a.npy").rename(layout.path / "features" / f"{elsewhere}.npy")
    lists = {"train": layout.path / "train.txt", "test": layout.path / "test.txt"}
    lists["train"].write_text(f"\ufeff{elsewhere}\nb\n", encoding="utf-8")
    lists["test"].write_text("c\n")
    rates = layout.path / "fps.csv"
    rates.write_text(f"video;fps\n{elsewhere};10\nb;10\n", encoding="utf-8-sig")
    _, store = layout.run(lists=lists, point_fps=rates)
    assert store.ids("train") == (NFC, "b") and NFC in store.info.classes
    np.testing.assert_array_equal(store.points(NFC).time_s, [2, 7])


def test_two_files_whose_names_differ_in_form_alone(layout):
    layout.database[NFC] = layout.database.pop("c")
    for form in (NFC, NFD):
        layout.save(form, np.random.default_rng(0).random((20, 4)))
    layout.refused(f"two files of this name, in two Unicode forms .* for video {NFC}; remove one")


@pytest.mark.parametrize("file", ["b", "v_b"])
def test_two_videos_that_one_file_could_serve(layout, file):
    layout.database["v_b"] = entry("validation", (1, 2, "open"))
    (layout.path / "features" / "b.npy").rename(layout.path / "features" / f"{file}.npy")
    layout.refused(rf"{file}\.npy: is the file of the videos b and v_b; rename the videos")
    layout.save("b", np.random.default_rng(3).random((20, 4)))
    layout.save("v_b", np.random.default_rng(4).random((20, 4)))
    plan_import(layout.source())
    assert layout.run()[1].ids("test") == ("c", "v_b")


@pytest.mark.parametrize("lengths", [(20, 20, 20), (20, 18, 22)])
def test_transposed_features(layout, lengths):
    for id, snippets in zip("abc", lengths, strict=True):
        layout.save(id, np.random.default_rng(0).random((4, snippets)))
    text = layout.refused(r"a\.npy: shape \(4, 20\) .* looks transposed, \(D, T\), as 3 of 3 files")
    assert text.endswith("pass --transpose")
    _, store = layout.run(transpose=True, allow_length=True)
    expected = np.load(layout.path / "features" / "b.npy").T.astype(np.float32)
    np.testing.assert_array_equal(store.video("b").features, expected)
    for id, snippets in zip("abc", lengths, strict=True):
        layout.save(id, np.random.default_rng(0).random((snippets, 4)))
    assert "leave --transpose out" in layout.refused("looks transposed", transpose=True)


def test_transposed_features_with_about_as_many_channels_as_snippets(layout):
    for id, snippets in zip("abc", (20, 21, 22), strict=True):
        layout.save(id, np.random.default_rng(0).random((19, snippets)))
    assert layout.refused(r"shape \(19, 20\) .* looks transposed").endswith("pass --transpose")


def test_one_transposed_file_among_others_is_named(layout):
    layout.save("b", np.random.default_rng(0).random((4, 20)))
    layout.refused(r"b\.npy: shape \(4, 20\); \(T, 4\) is needed.*this one looks transposed")


def test_a_folder_of_features_that_cannot_be_read(layout):
    layout.refused("nowhere: cannot be read", features=layout.path / "nowhere")


@pytest.mark.parametrize("separator", [";", "\t", ", "])
def test_points_with_other_separators(layout, separator):
    layout.lines = [line.replace(",", separator) for line in layout.lines]
    assert len(layout.run()[1].points("a")) == 2


def test_import_and_validate_refuse_the_same(layout, capsys, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(layout.path / "cache"))
    for kind, change in {
        "features that are not finite": lambda: layout.save("b", np.full((20, 4), np.nan)),
        "features that are constant": lambda: [layout.save(id, np.ones((20, 4))) for id in "abc"],
        "transposed features": lambda: [
            layout.save(id, np.random.default_rng(0).random((4, 20))) for id in "abc"
        ],
    }.items():
        change()
        assert main(["import", "x", *words(layout)]) == 3
        first = capsys.readouterr().err.removeprefix("error: ").partition(" (and")[0].strip()
        assert main(["validate", "x", *words(layout)]) == 3
        told = capsys.readouterr()
        assert f"PROBLEM {kind}: 1\n  {first}\n" in told.out
        assert told.err.startswith("error: x: 1 problem (") and kind in told.err
    assert not (layout.path / "cache").exists()


def test_the_page_shows_the_ten_worst_of_a_kind(layout, capsys):
    layout.lines += [f"open,a,{frame}" for frame in range(200, 212)]
    assert main(["validate", "x", *words(layout)]) == 3
    page = capsys.readouterr().out.splitlines()
    at = page.index("PROBLEM points outside their video: 12")
    assert "point 211 is at" in page[at + 1] and "point 202 is at" in page[at + 10]
    assert page[at + 11].strip() == "and 2 more"


def test_remarks_alone_exit_with_0(layout, capsys, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(layout.path / "cache"))
    for id in "abc":
        layout.save(id, np.load(layout.path / "features" / f"{id}.npy") + np.float32(20_000))
    assert main(["validate", "x", *words(layout)]) == 0
    assert (
        "remark  channels for which float16 is too imprecise; stored as float32: 4"
        in capsys.readouterr().out
    )
    assert main(["validate", "x", *words(layout, "--dtype", "float16")]) == 3
    assert main(["import", "x", *words(layout, "--dtype", "float16")]) == 3
    assert "remove --dtype" in capsys.readouterr().err
    assert main(["import", "x", *words(layout)]) == 0
    text = capsys.readouterr().out
    assert (
        "numbers, float32" in text
        and "stored as float32: 4 (float16 is too imprecise for 4 of 4" in text
    )


def test_a_store_is_judged_like_a_source(tmp_path, capsys):
    features = np.zeros((4, 2), np.float32)
    features[:, 0] = range(4)
    with StoreWriter(
        tmp_path / "d", name="d", classes=("open", "close"), grid=Grid(stride_s=1.0),
        features="test",
    ) as writer:  # fmt: skip
        found = segments((0, 1, 0), (0, 1, 0))
        twice = Points(time_s=np.array([0.5, 0.5]), label=np.zeros(2, np.int64))
        writer.add("a", subset="train", features=features, duration_s=4.0, annotations=found,
                   points=twice)  # fmt: skip
        writer.add("b", subset="test", features=features, duration_s=4.0,
                   annotations=segments(), points=twice)  # fmt: skip
    assert main(["validate", str(tmp_path / "d")]) == 0
    told = capsys.readouterr()
    for line in (
        "remark  splits without an instance; mAP cannot be computed on them: 1",
        "remark  duplicate instances, kept as annotated: 1",
        "remark  duplicate points: 2",  # b has no instance: its points are kept
        "remark  classes without an instance: 1",
        "remark  channels that are 0 in all videos: 1",
    ):
        assert line in told.out
