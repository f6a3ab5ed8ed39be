"""Frame rates, strides and windows, which each video may have of its own."""

from __future__ import annotations

import numpy as np

from ptal_ray.data.types import Grid
from ptal_ray.errors import DataError


def own_grid(id: str, grid: Grid | None, shared: Grid | None) -> Grid:
    """The grid of a video in a store whose videos share `shared`, or have each its own (None).

    Raises:
        DataError: there is none, it is not the shared one, or it is impossible.
    """
    found = grid or shared
    if found is None or shared not in (None, found):
        raise DataError(
            f"video {id}: grid {grid}; a store with one grid for all ({shared}) takes no other, "
            "and a store without needs one of each video"
        )
    if not (0 < found.stride_s < np.inf and np.isfinite(found.offset_s)):
        raise DataError(f"video {id}: {found}; a positive stride and a finite offset are needed")
    return found
