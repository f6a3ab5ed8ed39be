"""The evaluate command line, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import golden_names, shared

from ptal_ray.data.evaluation.command import parse_tiou
from ptal_ray.data.evaluation.detections import read_detections, read_ground_truth, write_detections
from ptal_ray.data.exclusions import PROTOCOLS, named_ids
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.evaluate import main

TRUTH = {
    "database": {
        "a": {"subset": "Test", "annotations": [{"segment": ["0", "10.0"], "label": "Run"}]},
        "b": {"subset": "test", "annotations": [{"segment": [5, 5], "label": "Jump"}]},
        "c": {"subset": "training", "annotations": [{"segment": [0, 1], "label": "Sit"}]},
    }
}


def detection(start: Any, end: Any, label: str = "Run", score: Any = 0.5) -> dict[str, Any]:
    return {"segment": [start, end], "label": label, "score": score}


def test_a_long_list_of_videos_to_leave_out_is_no_file() -> None:
    names = [f"video_test_{k:07d}" for k in range(40)]
    assert named_ids(",".join(names)) == frozenset(names)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    results = {
        "a": [detection(0, 10), detection(3, 3), detection(4, 2), detection(0, float("nan"))],
        "b": [detection(5, 5, "Jump"), detection(0, 1, "Sit"), detection(0, 1, "Run", None)],
        "c": [detection(0, 1, score=0.9)],
        "unknown": [detection(0, 10, score=0.1)],
    }
    (tmp_path / "gt.json").write_text(json.dumps(TRUTH))
    (tmp_path / "pred.json").write_text(json.dumps({"results": results}))
    return str(tmp_path / "gt.json"), str(tmp_path / "pred.json")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main([*argv, "--tiou", "0.5", "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def written(tmp_path: Path, truth: list[Any], results: dict[str, Any]) -> tuple[str, str]:
    """Files of one video "a" with `truth`, and of detections."""
    database = {"a": {"subset": "test", "duration": 100, "annotations": truth}}
    (tmp_path / "t.json").write_text(json.dumps({"database": database}))
    (tmp_path / "p.json").write_text(json.dumps({"results": results}))
    return str(tmp_path / "t.json"), str(tmp_path / "p.json")


INSTANCE = {"segment": [0, 10], "label": "Run"}


def test_json_counts_everything(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, *files, "--subset", "test")
    assert set(result["ignored"].values()) == {0, 1} and result["ignored"]["unknown_label"] == 1
    assert {reason: n for reason, n in result["noticed"].items() if n} == {
        "unknown_video": 2,  # in "c", of another subset, and in "unknown"
        "end_not_after_start": 3,
        "not_finite": 2,
        "ground_truth_zero_length": 1,
        "equal_scores": 4,
    }
    # A score of NaN and the false positive in "c" come first.
    assert result["per_class"] == {"Jump": {"0.50": 1.0}, "Run": {"0.50": pytest.approx(1 / 3)}}
    assert result["average"] == result["mAP"]["0.50"] == pytest.approx(2 / 3)
    assert result["instances_per_class"] == {"Jump": 1, "Run": 1}
    assert result["detections_per_class"] == {"Jump": 1, "Run": 7}
    assert (result["videos"], result["instances"], result["detections"]) == (2, 2, 8)
    assert len(result["notes"]) == 6


def test_degenerate_segments_are_left_out_on_demand(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(capsys, *files, "--subset", "test", "--drop-degenerate")
    assert result["ignored"] == {
        "unknown_label": 1,
        "end_not_after_start": 2,
        "not_finite": 2,
        "ground_truth_end_before_start": 0,
        "ground_truth_not_finite": 0,
    }
    # The false positive in "c" comes first; an exact instance of length zero counts as found.
    assert result["per_class"] == {"Jump": {"0.50": 1.0}, "Run": {"0.50": 0.5}}
    assert result["average"] == 0.75


def test_table_is_shown(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--tiou", "0.5,0.7", "--subset", "TEST"]) == 0
    captured = capsys.readouterr()
    assert "mAP    " in captured.out and "66.67" in captured.out
    last = captured.out.splitlines()[-1]
    assert "left out: unknown_label 1; noticed: " in last and "end_not_after_start 3" in last
    assert "3 of 8 detections end at or before their start, e.g. 'a' [3, 3] s" in captured.err
    assert all(line.startswith("note: ") for line in captured.err.splitlines())


@pytest.mark.parametrize(
    ("truth", "results", "expected", "dropped"),
    [
        pytest.param([INSTANCE], [(3, 3, 0.9), (0, 10, 0.8)], 0.5, 1.0, id="zero-length"),
        pytest.param([INSTANCE], [(9, 2, 0.9), (0, 10, 0.8)], 0.5, 1.0, id="reversed"),
        pytest.param([INSTANCE], [(10, 0, 0.9)], 1.0, 0.0, id="0/0 is a match"),
        pytest.param(
            [INSTANCE, {"segment": [30, 20], "label": "Run"}], [(0, 10, 0.9)], 0.5, 1.0,
            id="reversed instance is missed",
        ),
        pytest.param(
            [INSTANCE, {"segment": [50, float("inf")], "label": "Run"}], [(0, 10, 0.9)], 0.5, 1.0,
            id="endless instance is missed",
        ),
        pytest.param(
            [INSTANCE], [(20, 30, float("nan")), (0, 10, float("inf"))], 0.5, 0.0, id="NaN first"
        ),
        pytest.param([INSTANCE], [(20, 30, None), (0, 10, 0.9)], 0.5, 1.0, id="null is NaN"),
        pytest.param([INSTANCE], [(20, 30, "9e-5"), (0, 10, "0.9")], 0.5, 1.0, id="text"),
    ],
)  # fmt: skip
def test_official_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], truth: list[Any], results: list[Any],
    expected: float, dropped: float,
) -> None:  # fmt: skip
    files = written(tmp_path, truth, {"a": [detection(s, e, score=x) for s, e, x in results]})
    assert run(capsys, *files)["average"] == expected
    assert run(capsys, *files, "--drop-degenerate")["average"] == dropped


def map_case(name: str) -> tuple[Path, dict[str, Any], bool]:
    """Folder of the golden mAP values, a case, and whether scores of a class tie in it."""
    folder = shared("golden/map")
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    case = next(c for c in cases if c["name"] == name)
    results = json.loads((folder / case["pred"]).read_text())["results"]
    found = [(p["label"], p["score"]) for items in results.values() for p in items]
    return folder, case, len(set(found)) < len(found)


@pytest.mark.parametrize("name", golden_names("map/cases.json"))
def test_official_golden_values(capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder, case, tied = map_case(name)
    if tied or "ap_by_class" not in case["anet_official"]:
        pytest.skip("the official code has no value, or one that depends on its sort")
    made = run(capsys, str(folder / case["gt"]), str(folder / case["pred"]))
    for label, values in case["anet_official"]["ap_by_class"].items():
        official = values[case["tiou"].index(0.5)]
        assert made["per_class"][label]["0.50"] == pytest.approx(official, abs=1e-12)


@pytest.mark.parametrize(("real", "made"), [("a", "v_a"), ("v_a", "a")])
def test_ids_are_matched_with_and_without_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real: str, made: str
) -> None:
    files = written(tmp_path, [], {made: [detection(0, 10)]})
    database = {real: {"subset": "test", "annotations": [INSTANCE]}}
    Path(files[0]).write_text(json.dumps({"database": database}))
    result = run(capsys, *files)
    assert result["average"] == 1 and result["noticed"]["matched_ids"] == 1
    assert result["noticed"]["unknown_video"] == 0
    assert f"e.g. {made!r} with {real!r}" in result["notes"][0]


def test_ids_of_another_subset_are_not_matched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = written(tmp_path, [], {"v_a": [detection(0, 10)]})
    entries = {"a": {"subset": "test"}, "v_a": {"subset": "train"}}
    database = {id: entry | {"annotations": [INSTANCE]} for id, entry in entries.items()}
    Path(files[0]).write_text(json.dumps({"database": database}))
    result = run(capsys, *files, "--subset", "test")
    assert result["average"] == 0 and result["noticed"]["unknown_video"] == 1
    assert "1 of these videos are in another subset" in result["notes"][0]


@pytest.mark.parametrize(
    ("ids", "found", "words"),
    [
        (["a"], ["a", "v_a"], "'a' and 'v_a' are both the video 'a'"),
        (["v_a"], ["v_v_a", "a"], "'v_v_a' and 'a' are both the video 'v_a'"),
        (["a", "v_v_a"], ["v_a"], "'v_a' may be 'a' or 'v_v_a'"),
    ],
)
def test_ids_that_collide_are_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ids: list[str],
    found: list[str],
    words: str,
) -> None:
    files = written(tmp_path, [], {id: [detection(0, 10)] for id in found})
    database = {id: {"subset": "test", "annotations": [INSTANCE]} for id in ids}
    Path(files[0]).write_text(json.dumps({"database": database}))
    assert main(list(files)) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error and "p.json" in error


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--tiou", "0.7:0.1:0.1", "--subset", "test"], 2, "start:stop:step"),
        (["--tiou", "0:1:0.5", "--subset", "test"], 2, "in (0, 1]"),
        ([], 3, "choose one with --subset"),
        (["--subset", "val"], 3, "no video of subset 'val'; there are 'te"),
    ],
)
def test_bad_flags(
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    words: str,
) -> None:
    assert main([*files, *flags]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and words in captured.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", 'no object "results"'),
        ('{"results": {"a": {"segment": [0, 1]}}}', "a list of segments"),
        ('{"results": {"a": [{"segment": [0], "label": "Run"}]}}', "[start, end]"),
        ('{"results": {"a": [{"segment": [0, "x"], "label": "Run"}]}}', "'x' is not a number"),
        ('{"results": {"a": [{"segment": [0, 1], "score": 1}]}}', "class name"),
        ('{"results": {"a": [{"segment": [0, 1], "label": "Run"}]}}', 'no "score"'),
        ('{"results": {"a": [{"segment": [0, null], "label": "Run", "score": 1}]}}', "[0, null]"),
        (
            '{"results": {"a": [{"segment": [0, 1], "label": "Run", "score": "high"},'
            ' {"segment": [0, 1], "label": "Run", "score": 0.5}]}}',
            "scores of 'Run' are text ('high') and numbers (0.5)",
        ),
        (
            '{"results": {"a": [{"segment": [0, 1' + "0" * 400 + '], "label": "Run"}]}}',
            "below 1.8e308",
        ),
    ],
)
def test_bad_files(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    Path(files[1]).write_text(content)
    assert main([*files, "--subset", "test"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error and "pred.json" in error


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.json", "nowhere.json"]) == 3
    assert "nowhere.json: cannot be read" in capsys.readouterr().err


def test_written_detections_read_back(tmp_path: Path, files: tuple[str, str]) -> None:
    truth = read_ground_truth(Path(files[0]), "test")
    made = {
        "a": Segments(
            start_s=np.array([0.1, 2.0]), end_s=np.array([1.5, 3.0]), label=np.array([1, 0]),
            score=np.array([0.25, 1 / 3]),
        ),
        "b": Segments.empty(),
    }  # fmt: skip
    write_detections(tmp_path / "new" / "d.json", made, truth.classes)
    read = read_detections(tmp_path / "new" / "d.json", truth).segments
    for name in ("start_s", "end_s", "label", "score"):
        np.testing.assert_array_equal(getattr(read["a"], name), getattr(made["a"], name))


def test_thresholds_are_exact_decimals() -> None:
    assert parse_tiou("0.1:0.7:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert parse_tiou("0.5:0.95:0.05")[-1] == 0.95
    with pytest.raises(ConfigError):
        parse_tiou("nan")
    assert len(parse_tiou("0.001:1:0.001")) == 1000
    with pytest.raises(ConfigError, match="at most 1000"):
        parse_tiou("0.1:0.9:1e-9")


@pytest.mark.parametrize("name", golden_names("map/cases.json"))
def test_golden_file(capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder, case, tied = map_case(name)
    if not tied or 0.1 not in case["tiou"]:
        pytest.skip("its scores are distinct, which other tests compare")
    flags = ["--tiou", "0.1:0.7:0.1", "--json"]
    assert main([str(folder / case["gt"]), str(folder / case["pred"]), *flags]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["average"] == pytest.approx(case["stable_descending_sort"]["average"], abs=1e-12)


def thumos(tmp_path: Path) -> tuple[str, str]:
    """Two videos of THUMOS14, one of them left out by most papers, with an ambiguous instance."""
    ids = ("video_test_0000004", "video_test_0000270")
    items = [detection(0, 10), detection(20, 30, "Ambiguous")]
    truth = {i: {"subset": "test", "annotations": items} for i in ids}
    found = {ids[0]: [detection(0, 10)], ids[1]: [detection(50, 60, score=0.9)]}
    (tmp_path / "gt.json").write_text(json.dumps({"database": truth}))
    (tmp_path / "pred.json").write_text(json.dumps({"results": found}))
    return str(tmp_path / "gt.json"), str(tmp_path / "pred.json")


@pytest.mark.parametrize("text", ["thumos14-210", "video_test_0000270", "thumos14-211"])
def test_a_protocol_leaves_out_videos_of_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    files = thumos(tmp_path)
    whole = run(capsys, *files)
    assert (whole["videos"], whole["instances"]) == (2, 4)
    result = run(capsys, *files, "--exclude", text, "--drop-label", "Ambiguous")
    assert (result["videos"], result["instances"], result["detections"]) == (1, 1, 1)
    assert result["mAP"] == {"0.50": 1.0} and list(result["per_class"]) == ["Run"]
    assert result["ignored"]["videos_excluded"] == 1
    assert result["ignored"]["detection_videos_excluded"] == 1
    assert result["ignored"]["instances_of_dropped_classes"] == 1
    assert main([*files, "--exclude", text]) == 0
    assert "\n1 videos, " in capsys.readouterr().out


def test_the_other_protocols_keep_that_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = thumos(tmp_path)
    for text in ("thumos14-212", "thumos14-213"):
        assert run(capsys, *files, "--exclude", text)["videos"] == 2


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--exclude", "thumos14-209", "choose one of thumos14-213, thumos14-212"),
        ("--exclude", "nowhere.txt", "there is no such file"),
        ("--drop-label", "Ambigous", "there are Ambiguous"),
    ],
)
def test_a_wrong_protocol_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, words: str
) -> None:
    assert main([*thumos(tmp_path), flag, value]) == 3
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_protocols_say_how_many_of_213_videos_remain() -> None:
    for name in PROTOCOLS:
        assert len(named_ids(name)) == 213 - int(name.removeprefix("thumos14-"))
    kept = shared("data/annotations/THUMOS14/gt_full.json")
    ids = {i for i, v in json.loads(kept.read_text())["database"].items() if "test" in i}
    assert len(ids - named_ids("thumos14-210")) == 210
    assert len(ids - named_ids("thumos14-212")) == 212
