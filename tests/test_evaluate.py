"""The evaluate command line, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared

from ptal_ray.data.detections import read_detections, read_ground_truth, write_detections
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.evaluate import main, parse_tiou

TRUTH = {
    "database": {
        "a": {"subset": "Test", "annotations": [{"segment": ["0", "10.0"], "label": "Run"}]},
        "b": {"subset": "test", "annotations": [{"segment": [5, 5], "label": "Jump"}]},
        "c": {"subset": "training", "annotations": [{"segment": [0, 1], "label": "Sit"}]},
    }
}


def detection(start: Any, end: Any, label: str = "Run", score: Any = 0.5) -> dict[str, Any]:
    return {"segment": [start, end], "label": label, "score": score}


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


def test_json_counts_everything(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--tiou", "0.5:0.5:0.1", "--subset", "test", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ignored"] == {
        "unknown_video": 2,  # in "c", of another subset, and in "unknown"
        "unknown_label": 1,
        "end_not_after_start": 2,
        "not_finite": 2,
        "videos_without_detections": 0,
        "ground_truth_end_before_start": 0,
        "ground_truth_not_finite": 0,
    }
    # The false positive in "c" comes first; an exact instance of length zero counts as found.
    assert result["per_class"] == {"Jump": {"0.50": 1.0}, "Run": {"0.50": 0.5}}
    assert result["mAP"] == {"0.50": 0.75}
    assert result["average"] == 0.75


def test_table_is_shown(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--tiou", "0.5,0.7", "--subset", "TEST"]) == 0
    out = capsys.readouterr().out
    assert "mAP    " in out and "75.00" in out and "end_not_after_start 2" in out


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--tiou", "0.7:0.1:0.1", "--subset", "test"], 2, "start:stop:step"),
        (["--tiou", "0:1:0.5", "--subset", "test"], 2, "in (0, 1]"),
        ([], 3, "choose one with --subset"),
        (["--subset", "val"], 3, "no video of subset 'val'"),
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
    read, counts = read_detections(tmp_path / "new" / "d.json", truth)
    assert counts["videos_without_detections"] == 1
    for name in ("start_s", "end_s", "label", "score"):
        np.testing.assert_array_equal(getattr(read["a"], name), getattr(made["a"], name))


def test_thresholds_are_exact_decimals() -> None:
    assert parse_tiou("0.1:0.7:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert parse_tiou("0.5:0.95:0.05")[-1] == 0.95
    with pytest.raises(ConfigError):
        parse_tiou("nan")


def test_golden_file(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared("golden/map")
    case = next(
        c
        for c in json.loads((folder / "cases.json").read_text())["cases"]
        if c["name"] == "thumos_ties"
    )
    flags = ["--tiou", "0.1:0.7:0.1", "--json"]
    assert main([str(folder / case["gt"]), str(folder / case["pred"]), *flags]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["average"] == pytest.approx(case["stable_descending_sort"]["average"], abs=1e-12)
