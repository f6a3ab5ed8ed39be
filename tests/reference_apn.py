"""APN's clustering and contrast, one step at a time, as the specification words them."""

from __future__ import annotations

import math

import numpy as np

TIE = 1e-6  # sums of n distances are equal when they differ by less than n times this


def least(costs: dict[int, float], tie: float, last: bool = False) -> int:
    """The first (or last) key whose cost is the least, or within `tie` of it."""
    bound = min(costs.values()) + tie
    equal = [key for key, cost in costs.items() if cost <= bound]
    return max(equal) if last else min(equal)


def distances(x: np.ndarray, distance: str) -> np.ndarray:
    """(T, T); a vector of zeros is at cosine distance 1 from everything."""
    if distance == "cosine":
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return 1 - unit @ unit.T
    return np.sqrt(np.square(x[:, None] - x[None]).sum(axis=2))


def slow_kmedoids(
    far: np.ndarray, points: list[int], iterations: int
) -> tuple[list[int], list[int]]:
    """First snippets of the clusters 1.. and the medoids, from distances (T, T)."""
    length, number = len(far), len(points)
    middles = [math.ceil((a + b) / 2) for a, b in zip(points, points[1:], strict=False)]
    cuts, medoids = list(middles), list(points)
    for _ in range(max(iterations, 1)):
        old = list(cuts)
        forward, backward = [0] * (number - 1), [0] * (number - 1)
        previous = 0
        for i in range(number - 1):
            low, high = points[i], points[i + 1]
            costs = {
                b: far[previous:b, medoids[i]].sum() + far[b : high + 1, medoids[i + 1]].sum()
                for b in range(low + 1, high + 1)
            }
            previous = forward[i] = least(costs, TIE * (high - low))
        following = length
        for i in reversed(range(number - 1)):
            low, high = points[i], points[i + 1]
            costs = {
                b: far[low:b, medoids[i]].sum() + far[b:following, medoids[i + 1]].sum()
                for b in range(low + 1, high + 1)
            }
            following = backward[i] = least(costs, TIE * (high - low), last=True)
        cuts = [(f + b) // 2 for f, b in zip(forward, backward, strict=True)]
        if not iterations:
            break
        edges, middle_edges = [0, *cuts, length], [0, *middles, length]
        for i, point in enumerate(points):
            members = range(edges[i], edges[i + 1])
            inner = [s for s in members if middle_edges[i] <= s < middle_edges[i + 1]]
            sums = {s: float(far[s, inner].sum()) for s in members}
            tie = TIE * len(inner)
            medoids[i] = point if sums[point] <= min(sums.values()) + tie else least(sums, tie)
        if cuts == old:
            break
    return cuts, medoids


def slow_clusters(
    x: np.ndarray, points: list[int], distance: str, kappa: float, iterations: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int] | None]]:
    """Actions (first, last snippet) by point, and background by gap (None: none)."""
    if not points:
        return [], [None]
    length, number = len(x), len(points)
    far = distances(x, distance)
    cuts, medoids = slow_kmedoids(far, points, iterations)
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
        z = least({s: -d for s, d in nearer.items()}, TIE)
        first, last = 0, length - 1
        if gap > 0:
            costs = {
                e: far[low : e + 1, medoids[gap - 1]].sum() + far[e + 1 : z + 1, z].sum()
                for e in range(low, z)
            }
            first = least(costs, TIE * (high - low)) + 1
        if gap < number:
            costs = {
                s: far[s : high + 1, medoids[gap]].sum() + far[z:s, z].sum()
                for s in range(z + 1, high + 1)
            }
            last = least(costs, TIE * (high - low), last=True) - 1
        mean = np.mean([nearer[s] for s in range(first, last + 1)])
        if mean < kappa * np.mean(own) - TIE:
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

    def region(snippet: int, reach: int) -> np.ndarray:
        return unit(x[max(snippet - reach, 0) : snippet + reach + 1])

    backgrounds = [unit(x[s : e + 1]) for s, e in background]
    total, count = 0.0, 0
    if not backgrounds:
        return 0.0, 0
    for side in range(2):
        vectors = []
        for start, end, _ in actions:
            reach = math.floor(context * (end + 1 - start) + 0.5)
            vectors.append(region([start, end][side], reach))
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
