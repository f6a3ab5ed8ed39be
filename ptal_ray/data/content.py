"""The hash of what a store holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ptal_ray.data.types import DatasetInfo, FloatArray, Grid, Points, Segments

VERSION = 1  # of what is hashed; other than that of the files, so that old stores keep their hash


class Content:
    """A running sha256 over the information of a store and its videos in order."""

    def __init__(self, info: DatasetInfo, dtype: str) -> None:
        plain = asdict(replace(info, content_hash=""))
        self._hash = hashlib.sha256(json.dumps([VERSION, dtype, plain]).encode())
        self._shared = info.grid

    def add(
        self,
        id: str,
        subset: str,
        features: FloatArray,
        duration_s: float,
        annotations: Segments,
        points: Points,
        grid: Grid,
        group: str = "",
    ) -> None:
        """Takes in the next video: `features` (T, D) as stored, `duration_s` in seconds."""
        shape = list(features.shape)
        head: list[Any] = [id, subset, shape, float(duration_s), len(annotations), len(points)]
        if grid != self._shared:
            head += [grid.stride_s, grid.offset_s]
        if group:
            head += [{"group": group}]
        self._hash.update(json.dumps(head).encode())
        self._hash.update(np.ascontiguousarray(features).data)
        for seconds in (annotations.start_s, annotations.end_s, points.time_s):
            self._hash.update(np.ascontiguousarray(seconds, np.float64).data)
        for label in (annotations.label, points.label):
            self._hash.update(np.ascontiguousarray(label, np.int64).data)

    def digest(self) -> str:
        """The hash of what was added so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()
