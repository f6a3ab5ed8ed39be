"""Suppression against golden values and one-at-a-time references."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from conftest import shared

from ptal_ray.data.types import Segments
from ptal_ray.ops.nms import gated_soft_nms, hard_nms, soft_nms
from ptal_ray.ops.segments import tiou


def random_segments(seed: int, number: int = 60) -> Segments:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 40, number).astype(float)
    return Segments(
        start_s=start,
        end_s=start + rng.integers(1, 12, number),
        label=rng.integers(0, 3, number),
        score=rng.integers(1, 20, number) / 20,
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_hard_nms_equals_one_at_a_time(seed: int, plus_one: bool, threshold: float) -> None:
    given = random_segments(seed)
    kept: list[int] = []
    for row in np.argsort(-given.score, kind="stable"):
        fine = True
        for other in kept:
            if given.label[other] != given.label[row]:
                continue
            extra = 1.0 if plus_one else 0.0
            shared_s = min(given.end_s[row], given.end_s[other]) + extra
            shared_s = max(shared_s - max(given.start_s[row], given.start_s[other]), 0.0)
            lengths = (given.end_s - given.start_s)[[row, other]].sum() + 2 * extra
            fine = fine and shared_s / (lengths - shared_s) < threshold
        if fine:
            kept.append(int(row))
    made = hard_nms(given, threshold, plus_one)
    assert made.start_s.tolist() == given.start_s[kept].tolist()
    assert made.label.tolist() == given.label[kept].tolist()
    assert (np.diff(made.score) <= 0).all()


def test_soft_nms_of_two_is_the_formula() -> None:
    given = Segments(
        start_s=np.array([0.0, 2.0]),
        end_s=np.array([4.0, 6.0]),
        label=np.zeros(2, int),
        score=np.array([0.9, 0.8]),
    )
    made = soft_nms(given, sigma=0.5)
    assert made.score.tolist() == pytest.approx([0.9, 0.8 * math.exp(-((1 / 3) ** 2) / 0.5)])


def test_soft_nms_drops_what_falls_below_and_spares_other_classes() -> None:
    given = Segments(
        start_s=np.zeros(3), end_s=np.ones(3), label=np.array([0, 0, 1]),
        score=np.array([0.9, 0.8, 0.7]),
    )  # fmt: skip
    made = soft_nms(given, sigma=0.1, min_score=0.01)
    assert made.score.tolist() == [0.9, 0.7]


def test_nothing_in_nothing_out() -> None:
    for made in (hard_nms(Segments.empty(), 0.5), soft_nms(Segments.empty(), 0.5)):
        assert len(made) == 0


def test_golden_gated_soft_nms() -> None:
    golden = json.loads(shared("golden/bsn/soft_nms.json").read_text())
    args = golden["args"]
    for case in golden["cases"]:
        given = Segments(
            start_s=np.array(case["xmin"]),
            end_s=np.array(case["xmax"]),
            label=np.zeros(len(case["xmin"]), int),
            score=np.array(case["score"]),
        )
        made = gated_soft_nms(
            given, args["alpha"], args["low"], args["high"], 1.0, args["top_k"] + 1
        )
        for name, values in (
            ("score", made.score), ("xmin", made.start_s), ("xmax", made.end_s)
        ):  # fmt: skip
            np.testing.assert_allclose(values, case["out"][name], atol=1e-9)


def test_tiou_of_nothing_with_itself_is_one_and_of_inverted_is_zero() -> None:
    made = tiou([3, 3, 5], [3, 3, 2], [3, 2, 2], [3, 5, 5])
    assert made.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
