"""A small data set in the plain layout, to import."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ptal_ray.data.importing.importer import import_dataset
from ptal_ray.data.importing.plan import Source
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


def entry(subset, *segments, duration=10.0, **more):
    items = [{"segment": [s, e], "label": label} for s, e, label in segments]
    return {"subset": subset, "duration": duration, "annotations": items} | more


def small_layout(tmp_path):
    """Two training videos and a test video at 2 fps, and what is imported of them."""
    database = {
        "a": entry("training", (1, 3, "open"), (5, 9, "close")),
        "b": entry("training", (2, 4, "close")),
        "c": entry("validation", (0, 4, "open")),
    }
    lines = ["class,start_frame,stop_frame,video_id,point"]
    lines += ["open,10,30,a,20", "close,50,90,a,70", "close,20,40,b,30"]
    (tmp_path / "features").mkdir()
    rng = np.random.default_rng(0)
    for id in database:
        np.save(tmp_path / "features" / f"{id}.npy", rng.random((20, 4)).astype(np.float32))
    (tmp_path / "points.csv").write_text("\n".join(lines))
    return Layout(tmp_path, database, lines)


class Layout:
    """Files of an import, which a test changes before they are read."""

    def __init__(self, path, database, lines):
        self.path, self.database, self.lines = path, database, lines
        self.out = path / "out"

    def source(self, **changes):
        (self.path / "gt.json").write_text(json.dumps({"database": self.database}))
        (self.path / "points.csv").write_text("\n".join(self.lines))
        plain = {
            "name": "tiny", "features": self.path / "features",
            "annotations": self.path / "gt.json", "points": self.path / "points.csv",
            "point_fps": 10.0, "fps": 2.0, "stride": 1.0,
        }  # fmt: skip
        return Source(**(plain | changes))

    def run(self, **changes):
        plan = import_dataset(self.source(**changes), self.out, dtype="float32", replace=True)
        return plan, FeatureStore.open(self.out)

    def save(self, id, features):
        np.save(self.path / "features" / f"{id}.npy", features)

    def refused(self, message, **changes):
        out = self.path / "refused"
        with pytest.raises(DataError, match=message) as caught:
            import_dataset(self.source(**changes), out)
        assert "\n" not in str(caught.value)
        assert not list(self.path.glob("*refused*"))
        return str(caught.value)
