"""Average recall of proposals against their average number, as in ActivityNet's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments
from ptal_ray.ops.segments import tiou as tiou_matrix

Floats = NDArray[np.float64]
POINTS = 100  # of the curve
TIOU = tuple(k / 100 for k in range(50, 100, 5))


@dataclass(frozen=True, kw_only=True)
class RecallResult:
    """A curve of 100 points.

    Args:
        number: (100,) average number of proposals per video.
        per_tiou: (K, 100) recall at each threshold.
    """

    number: Floats
    per_tiou: Floats

    @property
    def average(self) -> Floats:
        """(100,) mean over the thresholds: AR at each number; AR@100 is the last of a default."""
        mean: Floats = self.per_tiou.mean(axis=0)
        return mean


def average_recall(
    truth: Mapping[str, Segments],
    proposals: Mapping[str, Segments],
    most: float = 100.0,
    tiou: Sequence[float] = TIOU,
) -> RecallResult:
    """Recall of all instances, of any class, by the best-scored proposals.

    The same fraction of the proposals of each video is used, so that the average number per video
    is 1, ..., 100 hundredths of `most`; of a video with too few all are used. Equal scores keep
    their order. An overlap equal to a threshold counts.

    Args:
        truth: instances by video; other videos' proposals are ignored.
        proposals: scored proposals by video; a video without any has recall 0.
        most: average number of proposals of a video at the end of the curve.
        tiou: K thresholds.

    Source: ActivityNet proposal evaluation; golden bmn ar.
    """
    nothing = Segments.empty()
    offered = {name: proposals.get(name, nothing) for name in truth}
    share = most * len(truth) / max(sum(len(p) for p in offered.values()), 1)
    best = {name: _best(found, share) for name, found in offered.items()}
    total = max(sum(len(found) for found in best.values()), 1)
    shares = np.arange(1, POINTS + 1) / POINTS * (most * len(truth) / total)
    found = np.zeros((len(tiou), POINTS))
    for name, real in truth.items():
        first = _first_hit(real, best[name], tiou)
        given = np.minimum((len(best[name]) * shares).astype(np.int64), len(best[name]))
        found += (first[:, :, None] < given).sum(axis=1)
    instances = max(sum(len(real) for real in truth.values()), 1)
    return RecallResult(number=shares * (total / max(len(truth), 1)), per_tiou=found / instances)


def _best(proposals: Segments, share: float) -> Segments:
    order = np.argsort(-proposals.score, kind="stable")
    return proposals.take(order[: int(len(proposals) * share)])


def _first_hit(real: Segments, found: Segments, tiou: Sequence[float]) -> NDArray[np.int64]:
    """(K, N) rank of the first proposal that reaches each threshold; past the last for none."""
    overlap = tiou_matrix(real.start_s, real.end_s, found.start_s, found.end_s)
    hit = overlap[None] >= np.asarray(tiou)[:, None, None]
    never = np.ones((*hit.shape[:2], 1), bool)
    first: NDArray[np.int64] = np.concatenate([hit, never], axis=2).argmax(axis=2)
    return first
