"""Rounding of float32 to float16, which NumPy does several times slower than a compiled loop."""

from __future__ import annotations

import numpy as np

from ptal_ray.data.types import FloatArray

LARGE = 1 << 20  # values from which the import of Numba, of half a second, pays


def rounded_to(features: FloatArray, dtype: str) -> FloatArray:
    """`features` (T, D), finite, in another type, C-contiguous; the bits are those of NumPy."""
    if features.size < LARGE or features.dtype != np.float32 or dtype != "float16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(features, dtype=dtype)
    from ptal_ray.data.features.half_loops import half_bits  # slow to import

    made = np.empty(features.shape, np.uint16)
    exact = np.ascontiguousarray(features)
    half_bits(exact, exact.view(np.uint32), made)
    return made.view(np.float16)
