"""The loops of `half`, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptal_ray.ops.jit import jit

_LEAST = np.float32(2.0**-14)  # the least normal number of float16
_OVER = np.float32(65520)  # rounds to infinity, as all larger numbers do
_INFINITY = np.float32(np.inf)
_SHIFT = np.float32(0.75)  # float32 has steps of 2**-24 around it, as float16 has below _LEAST
_SPLIT = np.float32(2**13 + 1)  # leaves 11 of 24 digits (Veltkamp)
_STEPS = np.float32(2.0**24)  # below _LEAST, in 1


@jit
def half_bits(exact: Any, bits: Any, made: Any) -> None:
    """Writes the bits of float16 for rows of finite float32; ties go to even.

    Args:
        exact, bits: (T, D), the same memory as float32 and as uint32.
        made: (T, D), uint16.
    """
    for t in range(len(bits)):
        for d in range(bits.shape[1]):
            size = bits[t, d] & np.uint32(0x7FFFFFFF)
            sign = (bits[t, d] >> np.uint32(16)) & np.uint32(0x8000)
            odd = (size >> np.uint32(13)) & np.uint32(1)
            normal = (size + np.uint32(0xFFF) + odd - np.uint32(0x38000000)) >> np.uint32(13)
            near = (abs(exact[t, d]) + _SHIFT) - _SHIFT
            small = np.uint32(np.int32(near * _STEPS))
            half = small if size < np.uint32(0x38800000) else normal
            made[t, d] = sign | min(half, np.uint32(0x7C00))


@jit
def add_sums(features: Any, origin: Any, total: Any, squares: Any, error: Any) -> None:
    """Adds the sums of a video to arrays of float64 (D,).

    Args:
        features: (T, D), finite, float32.
        origin: what is taken from its rows.
        total, squares: of the rows minus the origin.
        error: squares of what float16 loses of each value; infinite where one overflows.
    """
    for t in range(len(features)):
        for d in range(features.shape[1]):
            value = features[t, d]
            small = (value + _SHIFT) - _SHIFT
            wide = value * _SPLIT
            near = small if abs(value) < _LEAST else wide - (wide - value)
            lost = np.float64(_INFINITY if abs(value) >= _OVER else value - near)
            moved = np.float64(value) - origin[d]
            total[d] += moved
            squares[d] += moved * moved
            error[d] += lost * lost
