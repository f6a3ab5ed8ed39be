"""Detection mAP: golden values, and a slow reference on random and degenerate inputs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from ptal_ray.data.types import Segments
from ptal_ray.ops import workloads
from ptal_ray.ops.metrics import detection_map

# 0/0 overlaps of inverted predictions: the reference takes NaN as a match in an undefined place.
UNDEFINED = {"thumos_zero_and_inverted_predictions"}


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
        if "stable_descending_sort" not in case or case["name"] in UNDEFINED:
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
    assert checked == len(cases) - 2  # the one above, and the reference's own exception


def slow_map(
    truth: dict[str, Segments], found: dict[str, Segments], num_classes: int, tiou: float
) -> np.ndarray:
    """Average precision by class, prediction by prediction, as the specification words it."""
    result = np.full(num_classes, np.nan)
    for c in range(num_classes):
        instances = {v: [i for i in range(len(s)) if s.label[i] == c] for v, s in truth.items()}
        total = sum(map(len, instances.values()))
        if not total:
            continue
        rows = [(s, i, v) for v, s in found.items() for i in range(len(s)) if s.label[i] == c]
        rows.sort(key=lambda r: -r[0].score[r[1]])
        used: set[tuple[str, int]] = set()
        hits = []
        for s, i, v in rows:
            overlaps = []
            for k in instances.get(v, []):
                t = truth[v]
                shared_s = max(min(s.end_s[i], t.end_s[k]) - max(s.start_s[i], t.start_s[k]), 0.0)
                union = (s.end_s[i] - s.start_s[i]) + (t.end_s[k] - t.start_s[k]) - shared_s
                equal = s.start_s[i] == s.end_s[i] == t.start_s[k] == t.end_s[k]
                overlaps.append((1.0 if equal else shared_s / union if union > 0 else 0.0, k))
            hit = False
            for overlap, k in sorted(overlaps, reverse=True):
                if overlap < tiou:
                    break
                if (v, k) not in used:
                    used.add((v, k))
                    hit = True
                    break
            hits.append(hit)
        tp = np.cumsum(hits)
        recall = np.concatenate([[0], tp / total, [1]])
        precision = np.concatenate([[0], tp / np.arange(1, len(hits) + 1), [0]])
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.flatnonzero(recall[1:] != recall[:-1])
        result[c] = ((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum()
    return result


ROWS = st.lists(
    st.tuples(
        st.integers(0, 6), st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9])
    ),
    max_size=14,
)


@given(truth=st.lists(ROWS, min_size=1, max_size=3), found=st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_equals_the_slow_reference(truth: list[Any], found: list[Any]) -> None:
    made = [
        {
            f"v{n}": segments([(s, s + d, c, x) for s, d, c, x in rows])
            for n, rows in enumerate(side)
        }
        for side in (truth, found)
    ]
    tiou = (0.1, 0.5, 0.75, 1.0)
    result = detection_map(made[0], made[1], 3, tiou)
    for k, threshold in enumerate(tiou):
        expected = slow_map(made[0], made[1], 3, threshold)
        np.testing.assert_allclose(result.per_class[:, k], expected, atol=1e-12)


def test_large_groups_are_matched_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found, classes, tiou = workloads.thumos_like(3)
    some = {v: found[v] for v in list(found)[:20]}
    few = {v: truth[v] for v in list(truth)[:20]}
    whole = detection_map(few, some, classes, tiou)
    monkeypatch.setattr("ptal_ray.ops.metrics._PAIRS", 500)
    np.testing.assert_array_equal(
        detection_map(few, some, classes, tiou).per_class, whole.per_class
    )


def test_averages_are_over_the_asked_thresholds() -> None:
    truth = {"v": segments([(0, 10, 0, 1)])}
    result = detection_map(truth, {"v": segments([(0, 5, 0, 1)])}, 1, (0.3, 0.5, 0.7))
    assert result.per_tiou.tolist() == [1, 1, 0]
    assert result.average == pytest.approx(2 / 3)
    assert result.average_over((0.3, 0.7)) == 0.5
