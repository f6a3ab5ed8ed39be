"""APN's clustering and contrast, one step at a time, as the specification words them."""

from __future__ import annotations

import math

import numpy as np


def slow_clusters(
    x: np.ndarray, points: list[int], distance: str, kappa: float, iterations: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int] | None]]:
    """Actions (first, last snippet) by point, and background by gap (None: none)."""
    length, number = len(x), len(points)
    if distance == "cosine":
        norm = np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        far = 1 - (x / norm) @ (x / norm).T
    else:
        far = np.sqrt(np.square(x[:, None] - x[None]).sum(axis=2))
    if not number:
        return [], [None]
    middles = [math.ceil((a + b) / 2) for a, b in zip(points, points[1:], strict=False)]
    cuts, medoids = list(middles), list(points)
    for _ in range(iterations):
        old = list(cuts)
        forward, backward = [], [0] * (number - 1)
        previous = 0
        for i in range(number - 1):
            costs = {
                b: far[previous:b, medoids[i]].sum()
                + far[b : points[i + 1] + 1, medoids[i + 1]].sum()
                for b in range(points[i] + 1, points[i + 1] + 1)
            }
            previous = min(costs, key=lambda b: (round(costs[b], 9), b))
            forward.append(previous)
        following = length
        for i in reversed(range(number - 1)):
            costs = {
                b: far[points[i] : b, medoids[i]].sum() + far[b:following, medoids[i + 1]].sum()
                for b in range(points[i] + 1, points[i + 1] + 1)
            }
            following = min(costs, key=lambda b: (round(costs[b], 9), -b))
            backward[i] = following
        cuts = [(f + b) // 2 for f, b in zip(forward, backward, strict=True)]
        edges = [0, *cuts, length]
        middle_edges = [0, *middles, length]
        for i in range(number):
            members = range(edges[i], edges[i + 1])
            inner = [s for s in members if middle_edges[i] <= s < middle_edges[i + 1]]
            sums = {s: far[s, inner].sum() for s in members}
            best = min(members, key=lambda s: (round(sums[s], 9), s))
            medoids[i] = points[i] if sums[points[i]] <= sums[best] + 1e-6 else best
        if cuts == old:
            break
    edges = [0, *cuts, length]
    own = [far[s, medoids[i]] for i in range(number) for s in range(edges[i], edges[i + 1])]
    starts = edges[:-1]
    ends = [e - 1 for e in edges[1:]]
    background: list[tuple[int, int] | None] = []
    for gap in range(number + 1):
        low = points[gap - 1] if gap else -1
        high = points[gap] if gap < number else length
        inside = range(low + 1, high)
        if len(inside) < (3 if 0 < gap < number else 1):
            background.append(None)
            continue
        sides = [m for m, ok in ((gap - 1, gap > 0), (gap, gap < number)) if ok]
        nearer = {s: min(far[s, medoids[m]] for m in sides) for s in inside}
        z = max(inside, key=lambda s: (round(nearer[s], 9), -s))
        first, last = 0, length - 1
        if gap > 0:
            costs = {
                e: far[low : e + 1, medoids[gap - 1]].sum() + far[e + 1 : z + 1, z].sum()
                for e in range(low, z)
            }
            first = min(costs, key=lambda e: (round(costs[e], 9), e)) + 1
        if gap < number:
            costs = {
                s: far[s : high + 1, medoids[gap]].sum() + far[z:s, z].sum()
                for s in range(z + 1, high + 1)
            }
            last = min(costs, key=lambda s: (round(costs[s], 9), -s)) - 1
        if np.mean([nearer[s] for s in range(first, last + 1)]) < kappa * np.mean(own):
            background.append(None)
            continue
        background.append((first, last))
        if gap > 0:
            ends[gap - 1] = first - 1
        if gap < number:
            starts[gap] = last + 1
    return list(zip(starts, ends, strict=True)), background


def slow_contrast(
    x: np.ndarray,
    actions: list[tuple[int, int, set[int]]],
    background: list[tuple[int, int]],
    tau: float,
    context: float,
) -> tuple[float, int]:
    """Summed terms and their number, for one video; x is (T, D)."""

    def unit(rows: np.ndarray) -> np.ndarray:
        mean = rows.mean(axis=0)
        return mean / max(np.linalg.norm(mean), 1e-12)

    def region(edge: float, reach: float) -> np.ndarray:
        low = min(max(round(edge - reach), 0), len(x) - 1)
        high = min(max(round(edge + reach), low + 1), len(x))
        return unit(x[low:high])

    backgrounds = [unit(x[s : e + 1]) for s, e in background]
    total, count = 0.0, 0
    if not backgrounds:
        return 0.0, 0
    for side in range(2):
        vectors = []
        for start, end, _ in actions:
            reach = context * (end + 1 - start)
            vectors.append(region([start, end + 1][side], reach))
        for c in sorted(set().union(*(labels for _, _, labels in actions))):
            members = [i for i, (_, _, labels) in enumerate(actions) if c in labels]
            if len(members) < 2:
                continue
            for i in members:
                same = sum(math.exp(vectors[i] @ vectors[p] / tau) for p in members if p != i)
                other = sum(math.exp(vectors[i] @ b / tau) for b in backgrounds)
                total -= math.log(same / (same + other))
                count += 1
    return total, count
