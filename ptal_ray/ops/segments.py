"""Overlap of segments in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def paired_tiou(start_a: Any, end_a: Any, start_b: Any, end_b: Any) -> NDArray[np.float64]:
    """Temporal IoU of segments, element by element under broadcasting.

    A segment of length zero overlaps only an equal one (IoU 1). A reversed segment overlaps
    nothing. `official_tiou` is the same on all other segments.

    Args:
        start_a, end_a, start_b, end_b: seconds or snippets, broadcastable.

    Returns:
        IoU in [0, 1], of the broadcast shape.
    """
    intersection = np.maximum(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0.0)
    union = (end_a - start_a) + (end_b - start_b) - intersection
    overlap = np.where(union > 0, intersection / np.where(union > 0, union, 1.0), 0.0)
    nothing = (start_a == end_a) & (start_b == end_b) & (start_a == start_b)
    return np.where(nothing, 1.0, overlap)


def official_tiou(start_a: Any, end_a: Any, start_b: Any, end_b: Any) -> NDArray[np.float64]:
    """Temporal IoU as the ActivityNet evaluation computes it, without a special case.

    If the lengths, including negative ones, sum to zero, the result is 0/0: NaN. This holds for any
    two segments of length zero (ActivityNet 1.3 has three such instances), and for a segment and a
    reversed one of the same extent. Ends that are not finite can give NaN too.

    Args:
        start_a, end_a, start_b, end_b: seconds, broadcastable.

    Returns:
        Of the broadcast shape: in [0, 1], -0.0 or NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shared = np.maximum(np.minimum(end_a, end_b) - np.maximum(start_a, start_b), 0.0)
        overlap: NDArray[np.float64] = shared / ((end_a - start_a) + (end_b - start_b) - shared)
    return overlap


def tiou(start_a: Any, end_a: Any, start_b: Any, end_b: Any) -> NDArray[np.float64]:
    """(N, M) temporal IoU of N segments with M segments."""
    return paired_tiou(
        np.asarray(start_a, np.float64)[:, None],
        np.asarray(end_a, np.float64)[:, None],
        np.asarray(start_b, np.float64)[None],
        np.asarray(end_b, np.float64)[None],
    )
