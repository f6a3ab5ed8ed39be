"""Suppression written down one segment at a time, to compare the compiled one with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import Segments

F = np.float32


def soft(
    segments: Segments, kind: str, tiou: float, sigma: float, min_score: float
) -> tuple[list[int], list[float]]:
    """ActionFormer's soft suppression: all picks, in single precision."""
    start, end, score = (
        [F(v) for v in a] for a in (segments.start_s, segments.end_s, segments.score)
    )
    row, left, i = list(range(len(start))), len(start), 0
    while i < left:
        best = max(range(i, left), key=lambda k: (score[row[k]], -k))
        row[i], row[best] = row[best], row[i]
        a, k = row[i], i + 1
        while k < left:
            b = row[k]
            shared = max(F(0), min(end[a], end[b]) - max(start[a], start[b]))
            union = (end[a] - start[a] + F(1e-6)) + (end[b] - start[b] + F(1e-6)) - shared
            overlap = shared / union
            weight = F(1)
            if kind == "gaussian":
                weight = np.exp(-(overlap * overlap) / F(sigma))
            elif overlap >= F(tiou):
                weight = F(1) - overlap if kind == "linear" else F(0)
            score[b] *= weight
            if score[b] < F(min_score):
                left -= 1
                row[k], row[left] = row[left], row[k]
            else:
                k += 1
        i += 1
    return row[:left], [float(score[r]) for r in row[:left]]


def soft_by_matrix(
    start: NDArray[np.float64], end: NDArray[np.float64], score: NDArray[np.float64],
    decay: NDArray[np.float64], min_score: float, stop: int,
) -> tuple[list[int], list[float]]:  # fmt: skip
    """Picks by present score; each scales those left by its row of `decay` (N, N)."""
    present, left = score.astype(float).copy(), list(range(len(score)))
    rows, scores = [], []
    while len(left) > stop:
        best = max(left, key=lambda k: (present[k], -k))
        if present[best] < min_score:
            break
        left.remove(best)
        rows.append(best)
        scores.append(float(present[best]))
        for k in left:
            present[k] *= decay[best, k]
    return rows, scores
