"""Rounding of float32 to float16, which NumPy does about ten times slower than torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.types import FloatArray

LARGE = 1 << 20  # values from which the import of torch, of two seconds, pays
_BLOCK = 1 << 16  # values that stay in the cache of a CPU


def rounded_to(features: FloatArray, dtype: str) -> FloatArray:
    """`features` (T, D) in another type, C-contiguous; the bits are those that NumPy gives."""
    if features.size < LARGE or features.dtype != np.float32 or dtype != "float16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(features, dtype=dtype)
    import torch  # slow to import

    made = np.empty(features.shape, np.float16)
    rows = max(1, _BLOCK // features.shape[1])
    for at in range(0, len(features), rows):
        block = np.array(features[at : at + rows])  # torch takes no array that is read-only
        torch.from_numpy(made[at : at + rows]).copy_(torch.from_numpy(block))
    return made


def half_error(block: FloatArray) -> NDArray[np.float64]:
    """What float16 loses of each value of a float32 block, exactly."""
    import torch  # slow to import

    exact = torch.from_numpy(np.array(block))
    error: NDArray[np.float32] = (exact - exact.half().float()).numpy()
    return error.astype(np.float64)
