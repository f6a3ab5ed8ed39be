"""What is noticed beside the mAP of files, and the cause that is given for a mAP of 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptal_ray.data.evaluation.command import evaluate

RUN = {"segment": [0, 10], "label": "Run"}
JUMP = {"segment": [20, 30], "label": "Jump"}
TRUTH = {
    "a": {"subset": "test", "duration": 40, "annotations": [RUN, JUMP]},
    "b": {"subset": "test", "duration": 40, "annotations": [RUN]},
}


def found(start: float, end: float, label: str = "Run", score: Any = 0.5) -> dict[str, Any]:
    return {"segment": [start, end], "label": label, "score": score}


def judged(tmp_path: Path, truth: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    (tmp_path / "t.json").write_text(json.dumps({"database": truth}))
    (tmp_path / "p.json").write_text(json.dumps({"results": results}))
    return evaluate(tmp_path / "t.json", tmp_path / "p.json", (0.5,), None)


PERFECT = {"a": [found(0, 10, score=0.9), found(20, 30, "Jump")], "b": [found(0, 10)]}


def test_nothing_is_noticed_where_all_is_well(tmp_path: Path) -> None:
    result = judged(tmp_path, TRUTH, PERFECT)
    assert result["average"] == 1
    assert result["notes"] == [] and set(result["noticed"].values()) == {0}


@pytest.mark.parametrize(
    ("results", "reason", "number", "words"),
    [
        (
            {"x": [found(0, 1, score=0.1)]},
            "unknown_video",
            1,
            "1 detection in 1 video not",
        ),
        (
            {"b": []},
            "videos_without_detections",
            1,
            "no detection in 1 of 2 videos of the",
        ),
        ({"b": [found(0, 10), found(0, 10, score=0.2)]}, "repeated", 1, "e.g. 'b' [0, 10] s"),
        ({"b": [found(0, 41)]}, "beyond_duration", 0, ""),  # within a second and 2 %
        ({"b": [found(0, 45)]}, "beyond_duration", 1, "1 of 3 detections end after the end"),
        (
            {"b": [found(0, 10, score=0.9)]},
            "equal_scores",
            2,
            "2 of 3 detections have the same score",
        ),
        ({"b": [found(0, 10, score=float("nan"))]}, "not_finite", 1, "'b' [0, 10] s"),
        ({"b": [found(0, 10, score=float("inf"))]}, "not_finite", 1, "not finite"),
        ({"b": [found(float("nan"), 10)]}, "not_finite", 1, "'b' [nan, 10] s"),
        (
            {"a": [found(20, 30, "Jump", "0.5")]},
            "text_scores",
            1,
            "in 1 class, e.g. 'Jump'",
        ),
    ],
)
def test_detections(
    tmp_path: Path, results: dict[str, Any], reason: str, number: int, words: str
) -> None:
    result = judged(tmp_path, TRUTH, PERFECT | results)
    assert result["noticed"][reason] == number
    assert sum(words in note for note in result["notes"]) == (1 if number else len(result["notes"]))


def test_a_tie_of_all_scores_is_told(tmp_path: Path) -> None:
    results = {v: [found(0, 10), found(20, 30, "Jump")] for v in ("a", "b")}
    result = judged(tmp_path, TRUTH, results)
    assert result["noticed"]["equal_scores"] == 4
    assert any("all scores are 0.5" in note for note in result["notes"])


def test_a_tie_of_nan_is_told(tmp_path: Path) -> None:
    results = {v: [found(0, 10, score=None)] for v in ("a", "b")}
    assert judged(tmp_path, TRUTH, results)["noticed"]["equal_scores"] == 2


def test_an_unknown_label_names_one_like_it(tmp_path: Path) -> None:
    result = judged(tmp_path, TRUTH, PERFECT | {"b": [found(0, 10, " run")]})
    assert result["ignored"]["unknown_label"] == 1 and "unknown_label" not in result["noticed"]
    assert any("e.g. ' run' (like 'Run')" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ([30, 20], "ground_truth_end_before_start"),
        ([5, 5], "ground_truth_zero_length"),
        ([float("nan"), 5], "ground_truth_not_finite"),
        ([0, 10], "ground_truth_repeated"),
        ([0, 50], "ground_truth_beyond_duration"),
    ],
)
def test_ground_truth(tmp_path: Path, instance: list[float], reason: str) -> None:
    extra = {"b": TRUTH["b"] | {"annotations": [RUN, {"segment": instance, "label": "Run"}]}}
    result = judged(tmp_path, TRUTH | extra, PERFECT)
    assert result["noticed"][reason] == 1
    place = f"'b' [{instance[0]:g}, {instance[1]:g}] s"
    assert any("1 of 4 instances" in note and place in note for note in result["notes"])


@pytest.mark.parametrize("scale", [25.0, 1 / 40])
def test_times_in_another_unit_are_told_without_durations(tmp_path: Path, scale: float) -> None:
    truth = {id: {k: v for k, v in e.items() if k != "duration"} for id, e in TRUTH.items()}
    results = {
        id: [i | {"segment": [scale * t for t in i["segment"]]} for i in items]
        for id, items in PERFECT.items()
    }
    unknown = {id: [found(0, 10, score=0.1)] for id in ("x", "y", "z")}  # say nothing of units
    result = judged(tmp_path, truth, results | unknown)
    assert result["noticed"]["other_unit"] == 2
    assert any("check that both are in seconds" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("results", "cause"),
    [
        ({}, "there are no detections"),
        ({"a": [found(0, 10, "Sit")]}, "all detections are left out (unknown_label 1)"),
        ({"x": [found(0, 10)]}, "of the ground truth is 'a', one of the detections is 'x'"),
        ({"b": [found(0, 10, "Jump")]}, "has the label of an instance of its video"),
        ({"a": [found(0, 250)]}, "ends at 8.33 times the end of its last instance"),
        ({"a": [found(8, 12)]}, "is 0.167, below the lowest threshold 0.5"),
        ({"a": [found(38, 34)]}, "is 0, below the lowest threshold 0.5"),
    ],
)
def test_a_map_of_zero_has_a_likely_cause(
    tmp_path: Path, results: dict[str, Any], cause: str
) -> None:
    result = judged(tmp_path, TRUTH, results)
    assert result["average"] == 0
    assert result["notes"][-1].startswith("mAP is 0: ") and cause in result["notes"][-1]
