"""Detection mAP: golden values, and a slow reference on random and degenerate inputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from ptal_ray.benchmarks import random_predictions
from ptal_ray.data.types import Segments
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.segments import paired_tiou


def segments(rows: list[tuple[float, float, int, float]]) -> Segments:
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return Segments(
        start_s=columns[0], end_s=columns[1], label=columns[2].astype(int), score=columns[3]
    )


def golden_segments(items: list[dict[str, Any]], index: dict[str, int]) -> Segments:
    return segments(
        [
            (float(i["segment"][0]), float(i["segment"][1]), index[i["label"]], i.get("score", 1.0))
            for i in items
            if i["label"] in index
        ]
    )


def test_golden_cases() -> None:
    folder = shared("golden/map")
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    checked = 0
    for case in cases:
        if "stable_descending_sort" not in case:
            continue
        database = json.loads((folder / case["gt"]).read_text())["database"]
        results = json.loads((folder / case["pred"]).read_text())["results"]
        names = sorted({a["label"] for v in database.values() for a in v["annotations"]})
        index = {name: label for label, name in enumerate(names)}
        made = detection_map(
            {v: golden_segments(e["annotations"], index) for v, e in database.items()},
            {v: golden_segments(items, index) for v, items in results.items()},
            len(names),
            case["tiou"],
        )
        expected = case["stable_descending_sort"]
        np.testing.assert_allclose(made.per_tiou, expected["mAP"], atol=1e-12, err_msg=case["name"])
        assert made.average == pytest.approx(expected["average"], abs=1e-12)
        if not expected["differs_from_reference"]:
            for name, values in case["lacp"]["ap_by_class"].items():
                np.testing.assert_allclose(made.per_class[index[name]], values, atol=1e-12)
        checked += 1
    assert checked  # in the others the reference raises an error


def slow_overlap(found: tuple[float, float], truth: tuple[float, float]) -> float:
    """Intersection over union of signed lengths; NaN goes through, 0/0 is NaN."""
    a, b = np.array(found), np.array(truth)
    with np.errstate(all="ignore"):
        both = np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None)
        return float(both / (b[1] - b[0] + (a[1] - a[0]) - both))


def slow_hits(
    truth: dict[str, Segments], found: dict[str, Segments], label: int, tiou: float
) -> list[bool]:
    """Whether each prediction of a class matches, best score first, NaN before all others."""
    rows = [(s, i, v) for v, s in found.items() for i in range(len(s)) if s.label[i] == label]
    rows.sort(key=lambda r: (not np.isnan(r[0].score[r[1]]), -r[0].score[r[1]]))
    used: set[tuple[str, int]] = set()
    hits = []
    for s, i, v in rows:
        wishes = []
        for k in range(len(truth.get(v, ()))):
            if truth[v].label[k] == label:
                instance = (truth[v].start_s[k], truth[v].end_s[k])
                wishes.append((slow_overlap((s.start_s[i], s.end_s[i]), instance), k))
        wishes.sort(key=lambda w: (np.inf if np.isnan(w[0]) else w[0], w[1]), reverse=True)
        hit = False
        for overlap, k in wishes:
            if overlap < tiou:  # NaN is not
                break
            if (v, k) not in used:
                used.add((v, k))
                hit = True
                break
        hits.append(hit)
    return hits


def slow_map(
    truth: dict[str, Segments], found: dict[str, Segments], num_classes: int, tiou: float
) -> np.ndarray:
    """Average precision by class, prediction by prediction, as the specification words it."""
    result = np.full(num_classes, np.nan)
    for c in range(num_classes):
        total = sum(int((s.label == c).sum()) for s in truth.values())
        if not total:
            continue
        hits = slow_hits(truth, found, c, tiou)
        tp = np.cumsum(hits)
        recall = np.concatenate([[0], tp / total, [1]])
        precision = np.concatenate([[0], tp / np.arange(1, len(hits) + 1), [0]])
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.flatnonzero(recall[1:] != recall[:-1])
        result[c] = ((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum()
    return result


PROPER = st.tuples(
    st.integers(0, 6), st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9])
).map(lambda r: (r[0], r[0] + r[1], r[2], r[3]))
TIMES = st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0, 9.0, np.nan, np.inf, -np.inf])
ANYTHING = st.tuples(
    TIMES, TIMES, st.integers(0, 1), st.floats(0, 1) | st.sampled_from([np.nan, np.inf, -np.inf])
)
SIDES = st.sampled_from([PROPER, ANYTHING]).flatmap(
    lambda rows: st.tuples(
        st.lists(st.lists(rows, max_size=14), min_size=1, max_size=3),
        st.lists(st.lists(rows, max_size=14), min_size=1, max_size=4),
    )
)


@given(sides=SIDES)
@settings(max_examples=400, deadline=None)
def test_equals_the_slow_reference(sides: tuple[Any, Any]) -> None:
    truth, found = ({f"v{n}": segments(rows) for n, rows in enumerate(side)} for side in sides)
    tiou = (0.1, 0.5, 0.75, 1.0)
    result = detection_map(truth, found, 3, tiou)
    for k, threshold in enumerate(tiou):
        expected = slow_map(truth, found, 3, threshold)
        np.testing.assert_allclose(result.per_class[:, k], expected, atol=1e-12)


Row = tuple[float, float, int, float]
RUN: list[Row] = [(0, 10, 0, 1)]
FIRST: Row = (0, 10, 0, 0.9)


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        pytest.param(RUN, [(3, 3, 0, 1), FIRST], 0.5, id="zero-length"),
        pytest.param(RUN, [(9, 1, 0, 1), FIRST], 0.5, id="reversed"),
        pytest.param(RUN, [(60, 50, 0, 1), (0, 10, 0, 0.9)], 1.0, id="reversed, as long: 0/0"),
        pytest.param([*RUN, (30, 25, 0, 1)], [FIRST], 0.5, id="reversed truth is missed"),
        pytest.param([(5, 5, 0, 1)], [(70, 70, 0, 1)], 1.0, id="two zero lengths: 0/0"),
        pytest.param(RUN, [(20, 30, 0, np.nan), FIRST], 0.5, id="NaN score ranks first"),
        pytest.param(RUN, [(20, 30, 0, np.nan), (0, 10, 0, np.inf)], 0.5, id="before infinity"),
        pytest.param(RUN, [(20, 30, 0, np.inf), FIRST], 0.5, id="infinite score"),
        pytest.param(RUN, [(20, 30, 0, -np.inf), FIRST], 1.0, id="negative infinity ranks last"),
        pytest.param(RUN, [(np.nan, 3, 0, 0.1)], 1.0, id="NaN time matches"),
        pytest.param(RUN, [(0, np.inf, 0, 1), FIRST], 0.5, id="endless"),
        pytest.param([(np.nan, 3, 0, 1)], [(50, 60, 0, 1)], 1.0, id="NaN truth is matched"),
    ],
)
def test_degenerate_segments(truth: list[Row], found: list[Row], expected: float) -> None:
    made = detection_map({"v": segments(truth)}, {"v": segments(found)}, 1, (0.5,))
    assert made.average == expected


def test_proper_segments_have_one_overlap() -> None:
    """Stores and methods have no others, so a study has the same values with either overlap."""
    truth, found, classes, tiou = random_predictions.thumos_like(1)
    for side in (truth, found):
        assert all((s.start_s < s.end_s).all() for s in side.values())
    official = detection_map(truth, found, classes, tiou).per_class
    made = detection_map(truth, found, classes, tiou, paired_tiou).per_class
    np.testing.assert_array_equal(official, made)


def test_large_groups_are_matched_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found, classes, tiou = random_predictions.thumos_like(3)
    some = {v: found[v] for v in list(found)[:20]}
    few = {v: truth[v] for v in list(truth)[:20]}
    whole = detection_map(few, some, classes, tiou)
    monkeypatch.setattr("ptal_ray.ops.metrics._PAIRS", 500)
    np.testing.assert_array_equal(
        detection_map(few, some, classes, tiou).per_class, whole.per_class
    )


def test_the_average_is_over_all_thresholds() -> None:
    truth = {"v": segments([(0, 10, 0, 1)])}
    result = detection_map(truth, {"v": segments([(0, 5, 0, 1)])}, 1, (0.3, 0.5, 0.7))
    assert result.per_tiou.tolist() == [1, 1, 0]
    assert result.average == pytest.approx(2 / 3)


def test_normalised_precision_by_hand() -> None:
    """Class 0 has 1 instance and class 1 has 3, so both are judged as if they had 2."""
    truth = {"v": segments([(0, 1, 0, 0), (2, 3, 1, 0), (4, 5, 1, 0), (6, 7, 1, 0)])}
    found = {
        "v": segments(
            [(8, 9, 0, 0.9), (0, 1, 0, 0.8), (2, 3, 1, 0.9), (8, 9, 1, 0.8), (4, 5, 1, 0.7)]
        )
    }
    plain, normal = (detection_map(truth, found, 2, (0.5,), normalized=n) for n in (False, True))
    assert plain.per_class[:, 0] == pytest.approx([1 / 2, (1 + 2 / 3) / 3])
    one = 2 / (2 + 1)  # recall 1 of 2 instances, and one false positive
    two = (2 / 3 * 2) / (2 / 3 * 2 + 1)
    assert normal.per_class[:, 0] == pytest.approx([one, (1 + two) / 3])
    assert normal.average == pytest.approx((one + (1 + two) / 3) / 2)


def test_normalised_precision_of_equal_classes_is_precision() -> None:
    truth = {"v": segments([(0, 1, 0, 0), (2, 3, 1, 0)])}
    found = {"v": segments([(8, 9, 0, 0.9), (0, 1, 0, 0.8), (2, 3, 1, 0.9)])}
    plain, normal = (detection_map(truth, found, 2, (0.5,), normalized=n) for n in (False, True))
    assert plain.per_class.tolist() == normal.per_class.tolist()
