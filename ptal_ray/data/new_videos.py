"""Videos that belong to no store, in place of one: what a network is built and scored with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import DatasetInfo, Grid, Video
from ptal_ray.errors import DataError


class NewVideos(FeatureStore):
    """Videos in memory as the test split of a dataset that has neither points nor annotations.

    Args:
        path: where their features come from, for messages.
        info: of the data that the network was trained on, with the grid of these features.
        dtype: "float16" or "float32", as the features of that data are stored.
        ids: of all videos.
        videos: those in memory now, by id.
        embeddings: of the classes, by text encoder, as the network was trained with them.
    """

    def __init__(
        self,
        path: Path,
        info: DatasetInfo,
        dtype: str,
        ids: tuple[str, ...] = (),
        videos: Mapping[str, Video] | None = None,
        embeddings: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__(path, info, {"dtype": dtype})
        self._ids, self._loaded = ids, dict(videos or {})
        self.embeddings = dict(embeddings or {})

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.path, self.info, self.dtype, self._ids, self._loaded, self.embeddings)
        return NewVideos, parts

    def ids(self, subset: str) -> tuple[str, ...]:
        """All ids for "test", none for "train"."""
        return self._ids if subset == "test" else ()

    def length(self, id: str) -> int:
        """T, snippets of a video in memory."""
        return len(self.video(id).features)

    def duration_s(self, id: str) -> float:
        """Seconds of a video in memory."""
        return self.video(id).duration_s

    def grid(self, id: str) -> Grid:
        """Where the snippets of a video in memory lie."""
        return self.video(id).grid

    def video(self, id: str) -> Video:
        """A video in memory.

        Raises:
            DataError: it is not there.
        """
        if id not in self._loaded:
            raise DataError(f"{self.path}: video {id!r} is not in memory")
        return self._loaded[id]
