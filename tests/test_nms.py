"""Suppression against golden values and one-at-a-time references."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import reference_nms
from conftest import shared

from ptal_ray.data.types import Segments
from ptal_ray.ops.nms import (
    DECAYS,
    batched_nms,
    decayed_picks,
    gated_soft_nms,
    greedy_picks,
    hard_nms,
    soft_nms,
    voted,
)
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


def columns(start: object, end: object, label: object, score: object) -> Segments:
    a, b, d = (np.array(v, float) for v in (start, end, score))
    return Segments(start_s=a, end_s=b, label=np.array(label, np.int64), score=d)


def test_golden_nms_of_one_class() -> None:
    for case in json.loads(shared("golden/actionformer/nms_1d.json").read_text())["cases"]:
        edges = np.array(case["segs"], float).reshape(-1, 2)
        given = columns(edges[:, 0], edges[:, 1], np.zeros(len(edges)), case["scores"])
        for want in case["hard"]:
            made = greedy_picks(given, want["iou_threshold"], 0.0)
            assert made.tolist() == want["kept_indices"]
        for want in case["soft"]:
            setting = (want["method"], want["iou_threshold"], want["sigma"], want["min_score"])
            rows, score = decayed_picks(given, *setting, len(given))
            assert rows.tolist() == want["indices"]
            np.testing.assert_allclose(score, want["scores"], atol=1e-6)
            rows, score = reference_nms.soft(given, *setting)
            assert rows == want["indices"]
            np.testing.assert_allclose(score, want["scores"], atol=1e-6)


def test_golden_batched_nms() -> None:
    for case in json.loads(shared("golden/actionformer/batched_nms.json").read_text())["cases"]:
        edges, args = np.array(case["segs"], float).reshape(-1, 2), case["args"]
        made = batched_nms(
            columns(edges[:, 0], edges[:, 1], case["labels"], case["scores"]),
            tiou=args["iou_threshold"], sigma=args["sigma"], min_score=args["min_score"],
            most=args["max_seg_num"], soft=args["use_soft_nms"], multiclass=args["multiclass"],
            voting_tiou=args["voting_thresh"],
        )  # fmt: skip
        assert made.label.tolist() == case["out_labels"]
        want = np.array(case["out_segs"], float).reshape(-1, 2)
        np.testing.assert_allclose(made.start_s, want[:, 0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made.end_s, want[:, 1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(made.score, case["out_scores"], atol=1e-6)


def test_golden_gated_soft_nms_of_bmn() -> None:
    for case in json.loads(shared("golden/bmn/soft_nms.json").read_text())["cases"]:
        given = columns(case["xmin"], case["xmax"], np.zeros(len(case["xmin"])), case["score"])
        args = case["args"]
        made = gated_soft_nms(given, args["alpha"], args["t1"], args["t2"], 1.0, 101, leave=1)
        for name, values in (
            ("score", made.score), ("xmin", made.start_s), ("xmax", made.end_s)
        ):  # fmt: skip
            np.testing.assert_allclose(values, case["out"][name], atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("min_score", [0.0, 0.2])
def test_soft_picks_equal_one_at_a_time(seed: int, kind: str, min_score: float) -> None:
    given = random_segments(seed)
    rows, score = reference_nms.soft(given, kind, 0.3, 0.5, min_score)
    for most in (5, 60):
        made, made_score = decayed_picks(given, kind, 0.3, 0.5, min_score, most)
        assert made.tolist() == rows[:most]
        np.testing.assert_allclose(made_score, score[:most], rtol=1e-5)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("gated", [False, True])
def test_soft_nms_equals_its_matrix(seed: int, gated: bool) -> None:
    given = random_segments(seed)
    made = gated_soft_nms(given, 0.4, 0.1, 0.9, 60.0, 9, 1) if gated else soft_nms(given, 0.4, 0.1)
    found: list[tuple[float, float, int, float]] = []
    for label in range(3):
        own = given.take(given.label == label)
        own = own.take(np.argsort(-own.score, kind="stable"))
        overlap = tiou(own.start_s, own.end_s, own.start_s, own.end_s)
        decay = np.exp(-(overlap**2) / 0.4)
        if gated:
            gate = 0.1 + 0.8 * (own.end_s - own.start_s) / 60
            decay = np.where(overlap > gate[:, None], decay, 1)
        rows, score = reference_nms.soft_by_matrix(
            own.start_s, own.end_s, own.score, decay, -1 if gated else 0.1, int(gated)
        )
        rows, score = (rows[:9], score[:9]) if gated else (rows, score)
        edges = zip(own.start_s[rows], own.end_s[rows], strict=True)
        found += [(s, e, label, v) for (s, e), v in zip(edges, score, strict=True)]
    found.sort(key=lambda segment: -segment[3])
    want = columns(*zip(*found, strict=True))
    assert made.start_s.tolist() == want.start_s.tolist()
    assert made.label.tolist() == want.label.tolist()
    np.testing.assert_allclose(made.score, want.score, rtol=1e-12)


def test_a_threshold_of_0_keeps_only_the_best_as_in_the_released_code() -> None:
    given = columns([0.0, 2.0, 7.0], [3.0, 4.0, 8.0], [0, 0, 1], [0.5, 0.9, 0.7])
    assert greedy_picks(given, 0.0, 0.0).tolist() == [1]
    rows, score = decayed_picks(given, "hard", 0.0, 0.5, 1e-3, 3)
    assert rows.tolist() == [1] and score.tolist() == pytest.approx([0.9])
    made = batched_nms(
        given, tiou=0.0, sigma=0.5, min_score=0.0, most=9, soft=False, multiclass=True,
        voting_tiou=0.0,
    )  # fmt: skip
    assert made.start_s.tolist() == [2.0, 7.0]


def test_votes_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(0)
    start = rng.random(300) * 40
    every = columns(start, start + rng.random(300) * 6, np.zeros(300, int), rng.random(300))
    kept = every.take(np.arange(60))
    made = voted(kept, every, 0.6)
    overlap = tiou(kept.start_s, kept.end_s, every.start_s, every.end_s)
    weight = np.where(overlap >= 0.6, overlap * every.score, 0)
    for edge in ("start_s", "end_s"):
        want = weight @ getattr(every, edge) / weight.sum(axis=1)
        np.testing.assert_allclose(getattr(made, edge), want, rtol=1e-5)
    assert (made.start_s != kept.start_s).any() and (made.label == kept.label).all()


def test_voting_keeps_a_segment_that_nothing_votes_for() -> None:
    given = columns([1.0, 1.0, 4.0], [3.0, 3.5, 4.0], [0, 0, 0], [0.9, 0.5, 0.3])
    made = batched_nms(
        given, tiou=0.5, sigma=0.5, min_score=0.0, most=9, soft=False, multiclass=False,
        voting_tiou=0.7,
    )  # fmt: skip
    pull = 0.5 * 0.8 / (0.9 + 0.5 * 0.8)
    assert made.end_s.tolist() == pytest.approx([3 + 0.5 * pull, 4.0])
