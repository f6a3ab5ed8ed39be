"""A small store of some training videos of another one, for timings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptal_ray.data.store import FeatureStore, StoreWriter


def spread(store: FeatureStore, number: int) -> tuple[str, ...]:
    """At most `number` training videos, from the shortest to the longest, evenly spread."""
    ids = sorted(store.ids("train"), key=lambda id: (store.length(id), id))
    if len(ids) <= number:
        return tuple(ids)
    return tuple(ids[round(k * (len(ids) - 1) / max(number - 1, 1))] for k in range(number))


def write_part(store: FeatureStore, ids: Sequence[str], path: Path) -> Path:
    """Copies training videos with their annotations and points to a new store at `path`."""
    info = store.info
    with StoreWriter(
        path, name=info.name, classes=info.classes, grid=None, features=info.features,
        note=info.note, dtype=store.dtype, measured=True,
    ) as writer:  # fmt: skip
        for id in ids:
            writer.add(
                id, subset="train", features=store.video(id).features,
                duration_s=store.duration_s(id), annotations=store.annotations(id),
                points=store.points(id), grid=store.grid(id),
            )  # fmt: skip
    return path
