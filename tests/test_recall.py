"""Average recall against golden values and by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from conftest import shared

from ptal_ray.data.types import Segments
from ptal_ray.ops.recall import average_recall


def segments(rows: list[dict[str, Any]]) -> Segments:
    edges = np.array([r["segment"] for r in rows], float).reshape(-1, 2)
    score = np.array([r.get("score", 1.0) for r in rows], float)
    return Segments(
        start_s=edges[:, 0], end_s=edges[:, 1], label=np.zeros(len(rows), np.int64), score=score
    )


def test_golden_average_recall() -> None:
    folder = shared("golden/bmn")
    want, truth, found = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("ar", "ar_gt", "ar_pred")
    )
    made = average_recall(
        {name: segments(video["annotations"]) for name, video in truth["database"].items()},
        {name: segments(rows) for name, rows in found["results"].items()},
    )
    np.testing.assert_allclose(made.per_tiou, want["recall"], atol=1e-12)
    np.testing.assert_allclose(made.average, want["avg_recall"], atol=1e-12)
    np.testing.assert_allclose(made.number, want["proposals_per_video"], atol=1e-9)
    assert made.average[0] == want["AR_at_1"]


def test_recall_counts_the_instances_of_videos_without_proposals() -> None:
    one = [{"segment": [0, 4]}]
    found = {"a": segments([{"segment": [0, 4], "score": 0.5}, {"segment": [5, 6], "score": 0.9}])}
    made = average_recall({"a": segments(one), "b": segments(one)}, found, most=1.0)
    assert made.average[-1] == 0.5
    assert made.average[49] == 0.0  # the better proposal misses
    assert average_recall({"b": segments(one)}, {}).average.tolist() == [0.0] * 100
