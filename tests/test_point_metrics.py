"""Detections judged by points alone: hand-worked cases, then a slow and obvious reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptal_ray.data.types import Points, Segments
from ptal_ray.ops.point_metrics import (
    SHORTEST,
    UNIFORM,
    mean_length_s,
    point_log_likelihood,
    pure_hits,
)


def points(*times, label=0):
    return Points(time_s=np.array(times, float), label=np.full(len(times), label))


def found(*rows):
    """Detections (start, end, score), or with a class as the fourth number."""
    columns = np.array([(*row, 0)[:4] for row in rows], float).reshape(-1, 4).T
    return Segments(
        start_s=columns[0], end_s=columns[1], score=columns[2], label=columns[3].astype(int)
    )


def correct(own, *rows):
    return pure_hits({"a": own}, {"a": found(*rows)}, 2).correct["a"].tolist()


def test_a_detection_is_correct_with_exactly_one_point():
    own = points(2.0, 5.0)
    assert correct(own, (1, 3, 0.9), (4, 6, 0.8)) == [True, True]
    assert correct(own, (1, 6, 0.9)) == [False]  # two points
    assert correct(own, (3, 4, 0.9)) == [False]  # none
    assert correct(own, (1, 3, 0.9), (0, 4, 0.8)) == [True, False]  # none that is free
    assert correct(own, (0, 4, 0.8), (1, 3, 0.9)) == [False, True]  # the better one is first
    assert correct(own, (1, 3, 0.9), (1, 6, 0.8)) == [True, True]  # one of its two is taken
    assert correct(own, (1, 6, 0.9), (1, 3, 0.8), (4, 6, 0.7)) == [False, True, True]
    assert correct(own, (1, 3, 0.5), (1.5, 2.5, 0.5)) == [True, False]  # ties keep their order


def test_edges_are_inside_and_reversed_segments_empty():
    assert correct(points(2.0), (2, 3, 0.9)) == correct(points(2.0), (1, 2, 0.9)) == [True]
    assert correct(points(2.0), (2, 2, 0.9)) == [True]
    assert correct(points(2.0), (3, 1, 0.9)) == [False]
    assert correct(points(2.0, 2.0), (1, 3, 0.9)) == [False]


def test_classes_and_videos_do_not_mix():
    assert correct(points(2.0), (1, 3, 0.9, 1), (1, 3, 0.8, 0)) == [False, True]
    hits = pure_hits(
        {"a": points(2.0), "b": points(2.0, label=1)},
        {"b": found((1, 3, 0.9)), "a": found((1, 3, 0.8)), "c": found((1, 3, 0.7))},
        3,
    )
    assert {id: own.tolist() for id, own in hits.correct.items()} == {
        "a": [True], "b": [False], "c": [False],
    }  # fmt: skip
    # Class 0: wrong, then right, of one point; class 1 is not found; class 2 has no point.
    np.testing.assert_allclose(hits.per_class, [0.5, 0.0, np.nan])
    assert hits.mean == pytest.approx(0.25)


def test_average_precision_is_interpolated():
    own = {"a": points(1.0, 3.0, 5.0, 7.0)}
    wrong, rows = (8, 9), [(0, 2), (8, 9), (2, 4), (4, 6)]
    scored = [(*row, 1 - k / 10) for k, row in enumerate(rows)]
    # Right, wrong, right, right of four points: precision 1, then 3/4 (the envelope of 2/3, 3/4).
    assert pure_hits(own, {"a": found(*scored)}, 1).mean == pytest.approx((1 + 0.75 + 0.75) / 4)
    assert pure_hits(own, {"a": found((*wrong, 1.0))}, 1).mean == 0
    assert pure_hits(own, {"a": Segments.empty()}, 1).mean == 0
    assert pure_hits(own, {}, 1).mean == 0
    assert pure_hits({"a": points()}, {"a": found((0, 1, 1.0))}, 1).mean == 0


def slow_hits(own, predictions, num_classes):
    """The definition, one detection after the other."""
    free = {id: np.ones(len(p), bool) for id, p in own.items()}
    rows = [(s, id, k) for id, p in predictions.items() for k, s in enumerate(p.score)]
    right = {id: np.zeros(len(p), bool) for id, p in predictions.items()}
    listed = {label: [] for label in range(num_classes)}
    for _, id, k in sorted(rows, key=lambda row: -row[0]):
        p = predictions[id]
        inside = [
            j for j, (t, c) in enumerate(zip(own[id].time_s, own[id].label, strict=True))
            if c == p.label[k] and p.start_s[k] <= t <= p.end_s[k] and free[id][j]
        ] if id in own else []  # fmt: skip
        if len(inside) == 1:
            free[id][inside[0]] = False
            right[id][k] = True
        listed[int(p.label[k])].append(len(inside) == 1)
    return right, [slow_ap(listed[c], own, c) for c in range(num_classes)]


def slow_ap(right, own, label):
    positives = sum(int((p.label == label).sum()) for p in own.values())
    if not positives:
        return math.nan
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return sum(max(precision[k:]) for k, good in enumerate(right) if good) / positives


@pytest.mark.parametrize("seed", range(12))
def test_hits_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    own, predictions = {}, {}
    for video in range(5):
        number = int(rng.integers(0, 9))
        order = np.sort(rng.integers(0, 40, number) / 2)
        own[f"v{video}"] = Points(time_s=order, label=rng.integers(0, 3, number))
        many = int(rng.integers(0, 60))
        start = rng.integers(0, 40, many) / 2
        predictions[f"v{video}"] = Segments(
            start_s=start, end_s=start + rng.integers(-1, 12, many) / 2,
            label=rng.integers(0, 4, many), score=rng.integers(0, 30, many) / 30,
        )  # fmt: skip
    del predictions["v4"]
    hits = pure_hits(own, predictions, 4)
    right, per_class = slow_hits(own, predictions, 4)
    for id in predictions:
        np.testing.assert_array_equal(hits.correct[id], right[id])
    np.testing.assert_allclose(hits.per_class, per_class)


def slow_likelihood(own, predictions, num_classes, duration_s):
    score = sorted((s for id in own for s in predictions[id].score), reverse=True)
    by_class = {}
    for id, p in own.items():
        segments = predictions[id]
        weight = [1 / (1 + score.index(s) / len(own)) for s in segments.score]
        for time_s, label in zip(p.time_s, p.label, strict=True):
            density = 0.0
            for k, w in enumerate(weight):
                start, end = segments.start_s[k], segments.end_s[k]
                if segments.label[k] == label and start <= time_s <= end:
                    density += w / sum(weight) / max(end - start, SHORTEST * duration_s[id])
            gain = UNIFORM + (1 - UNIFORM) * density * duration_s[id] * num_classes
            by_class.setdefault(int(label), []).append(math.log(gain))
    return float(np.mean([np.mean(gains) for gains in by_class.values()]))


def test_log_likelihood_by_hand():
    own = {"a": points(2.0)}

    def value(*rows, classes=2):
        return point_log_likelihood(own, {"a": found(*rows)}, classes, {"a": 10.0})

    assert value((1, 3, 0.5)) == pytest.approx(math.log(0.1 + 0.9 * 10 * 2 / 2))
    assert value((0, 10, 0.5)) == pytest.approx(math.log(0.1 + 0.9 * 2))
    assert value((0, 10, 0.5), classes=1) == pytest.approx(0)  # anywhere: nothing is known
    assert value((3, 9, 0.5)) == value((1, 3, 0.5, 1)) == value() == pytest.approx(math.log(0.1))
    # Two detections of one video weigh 1 and 1/2, whatever their scores.
    expected = math.log(0.1 + 0.9 * (2 / 3) * 10 * 2 / 2)
    assert value((1, 3, 0.9), (7, 9, 0.1)) == pytest.approx(expected)
    assert value((1, 3, 90.0), (7, 9, -1.0)) == pytest.approx(expected)
    assert value((2, 2, 0.5)) == pytest.approx(math.log(0.1 + 0.9 * 2 / SHORTEST))
    assert point_log_likelihood({"a": points()}, {"a": found()}, 2, {"a": 10.0}) == 0


@pytest.mark.parametrize("seed", range(4))
def test_log_likelihood_is_that_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    own, predictions, duration_s = {}, {}, {}
    for video in range(4):
        number, many = int(rng.integers(0, 9)), int(rng.integers(0, 20))
        duration_s[f"v{video}"] = float(rng.uniform(20, 40))
        own[f"v{video}"] = Points(
            time_s=np.sort(rng.uniform(0, 20, number)), label=rng.integers(0, 3, number)
        )
        start = rng.uniform(0, 20, many)
        predictions[f"v{video}"] = Segments(
            start_s=start, end_s=start + rng.uniform(0, 6, many), label=rng.integers(0, 3, many),
            score=rng.integers(0, 9, many) / 9,
        )  # fmt: skip
    assert point_log_likelihood(own, predictions, 3, duration_s) == pytest.approx(
        slow_likelihood(own, predictions, 3, duration_s)
    )


def test_mean_length_of_the_best_of_each_class():
    predictions = {
        "a": found((0, 2, 0.9), (0, 9, 0.1), (0, 5, 0.6, 1)), "b": found((0, 4, 0.8)),
    }  # fmt: skip
    assert mean_length_s(predictions, [2, 1]) == pytest.approx((2 + 4 + 5) / 3)
    assert mean_length_s(predictions, [1, 0]) == 2
    assert mean_length_s(predictions, [9, 0]) == pytest.approx((2 + 4 + 9) / 3)
    assert math.isnan(mean_length_s(predictions, [0, 0]))
    assert math.isnan(mean_length_s({}, [1, 1]))
