"""A store of random features with annotated instances and points, for timings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Points, Segments


def random_store(
    path: Path, *, videos: int, snippets: int, dim: int, classes: int, points: int
) -> Path:
    """A store of Gaussian features with evenly spread instances, for timing only.

    Args:
        path: folder of the store.
        videos: training videos; a quarter as many test videos are added.
        snippets: T of every video.
        dim: D.
        classes: C.
        points: instances and points of every video.
    """
    rng = np.random.default_rng(0)
    names = tuple(f"Class{c}" for c in range(classes))
    note = "random features, for timing only"
    with StoreWriter(
        path, name="profile", classes=names, grid=Grid(stride_s=1.0), features="random", note=note
    ) as writer:
        edge = np.linspace(0, snippets, points * 2 + 2)[1:-1]
        for index in range(videos + max(2, videos // 4)):
            label = rng.integers(0, classes, points)
            writer.add(
                f"video{index}",
                subset="train" if index < videos else "test",
                features=rng.standard_normal((snippets, dim), np.float32),
                duration_s=float(snippets),
                annotations=Segments(
                    start_s=edge[::2], end_s=edge[1::2], label=label, score=np.ones(points)
                ),
                points=Points(time_s=(edge[::2] + edge[1::2]) / 2, label=label),
            )
    return path
