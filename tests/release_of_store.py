"""The files from which a small store may be imported: features, annotations, points."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.__main__ import main
from ptal_ray.data.store import FeatureStore

Array = NDArray[np.floating]


def write_release(
    store: FeatureStore,
    folder: Path,
    raw: Callable[[Array], Array],
    rates: Callable[[int], float] = lambda number: 10.0,
) -> Path:
    """Writes features/<id>.npy, gt.json and points.csv of a store, in a new folder.

    Args:
        store: whose snippets are half a second.
        folder: to make.
        raw: what turns features into those of the files.
        rates: frames a second of the k-th video; a snippet is 5 of its frames.
    """
    (folder / "features").mkdir(parents=True)
    database, points = {}, ["video_id,class,time_s"]
    for number, id in enumerate((*store.ids("train"), *store.ids("test"))):
        np.save(folder / "features" / f"{id}.npy", raw(store.video(id).features))
        longer = 10 / rates(number)
        found, own = store.annotations(id), store.points(id)
        edges = zip(found.start_s, found.end_s, found.label, strict=True)
        database[id] = {
            "subset": "train" if id in store.ids("train") else "test",
            "duration": store.duration_s(id) * longer,
            "fps": rates(number),
            "annotations": [
                {"segment": [s * longer, e * longer], "label": store.info.classes[c]}
                for s, e, c in edges
            ],
        }
        points += [
            f"{id},{store.info.classes[c]},{time * longer}"
            for time, c in zip(own.time_s, own.label, strict=True)
        ]
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    (folder / "points.csv").write_text("\n".join(points) + "\n")
    return folder


def imported(release: Path, out: Path, *words: object) -> FeatureStore:
    """The store of a release of `write_release`, at `out`."""
    given = ("--features", release / "features", "--annotations", release / "gt.json",
             "--points", release / "points.csv", "--out", out)  # fmt: skip
    assert main(["import", "mine", *map(str, (*given, *words))]) == 0
    return FeatureStore.open(out)


def of_the_test_split(store: FeatureStore, release: Path, folder: Path) -> Path:
    """The raw features of the test videos, in a new folder."""
    folder.mkdir()
    for id in store.ids("test"):
        name = f"{id}.npy"
        (folder / name).write_bytes((release / "features" / name).read_bytes())
    return folder
