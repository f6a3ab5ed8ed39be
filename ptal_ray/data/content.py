"""The hash of what a store holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np

from ptal_ray.data.types import DatasetInfo, FloatArray, Points, Segments


class Content:
    """A running sha256 over the information of a store and its videos in order."""

    def __init__(self, version: int, info: DatasetInfo, dtype: str) -> None:
        plain = asdict(replace(info, content_hash=""))
        self._hash = hashlib.sha256(json.dumps([version, dtype, plain]).encode())

    def add(
        self,
        id: str,
        subset: str,
        features: FloatArray,
        duration_s: float,
        annotations: Segments,
        points: Points,
    ) -> None:
        """Takes in the next video: `features` (T, D) as stored, `duration_s` in seconds."""
        head = [id, subset, list(features.shape), float(duration_s), len(annotations), len(points)]
        self._hash.update(json.dumps(head).encode())
        self._hash.update(np.ascontiguousarray(features).data)
        for seconds in (annotations.start_s, annotations.end_s, points.time_s):
            self._hash.update(np.ascontiguousarray(seconds, np.float64).data)
        for label in (annotations.label, points.label):
            self._hash.update(np.ascontiguousarray(label, np.int64).data)

    def digest(self) -> str:
        """The hash of what was added so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()
