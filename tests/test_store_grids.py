"""The grids of a store: one for all videos, or one for each."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from test_store import GRID, video, write, writer

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid
from ptal_ray.errors import DataError


def write_own_grids(path, *strides_s):
    with writer(path, grid=None) as store:
        for n, stride_s in enumerate(strides_s):
            store.add(f"v{n}", **video(), grid=Grid(stride_s=stride_s, offset_s=n / 8))
    return FeatureStore.open(path)


def as_version_1(store):
    """Writes the store's files over as the first schema version had them."""
    file = store.path / "videos.arrow"
    table = pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()
    table = table.drop_columns(["stride_s", "offset_s"])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    description = json.loads((store.path / "store.json").read_text())
    description["sizes"]["videos.arrow"] = file.stat().st_size
    (store.path / "store.json").write_text(json.dumps(description | {"schema_version": 1}))
    return FeatureStore.open(store.path)


def test_each_video_may_have_its_own_grid(tmp_path):
    store = write_own_grids(tmp_path / "d", 0.5, 0.6)
    assert store.info.grid is None
    assert store.grid("v0") == store.video("v0").grid == Grid(stride_s=0.5)
    assert store.grid("v1") == store.video("v1").grid == Grid(stride_s=0.6, offset_s=0.125)
    store.verify()
    other = write_own_grids(tmp_path / "e", 0.5, 0.7)
    assert other.info.content_hash != store.info.content_hash


def test_a_store_of_one_grid_keeps_the_hash_that_the_first_schema_version_gave_it(tmp_path):
    found = write(tmp_path / "d").info.content_hash
    assert found == "9b2b82e4c5b813238711be2a5a7acdb3f1a30fe4cc70b108dbfd32c9bec65362"


def test_a_store_of_the_first_schema_version_opens_with_its_one_grid(tmp_path):
    store = as_version_1(write(tmp_path / "d"))
    assert store.grid("a") == store.video("b").grid == GRID
    store.verify()
    description = json.loads((store.path / "store.json").read_text())
    description["info"]["grid"] = None
    (store.path / "store.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"store\.json: damaged; import it again"):
        FeatureStore.open(store.path)


def test_verify_notices_a_grid_that_was_changed(tmp_path):
    for store in (write(tmp_path / "d"), write_own_grids(tmp_path / "e", 0.5, 0.6)):
        file = store.path / "videos.arrow"
        data = file.read_bytes()
        assert data.count(np.float64(0.5).tobytes())
        changed = data.replace(np.float64(0.5).tobytes(), np.float64(0.75).tobytes())
        file.write_bytes(changed)
        with pytest.raises(DataError, match="does not match its hash"):
            FeatureStore.open(store.path).verify()


@pytest.mark.parametrize(
    ("shared", "own", "message"),
    [
        (None, None, "needs a grid for each video"),
        (GRID, Grid(stride_s=1.0), "accepts no other"),
        (None, Grid(stride_s=0.0), "stride must be positive"),
        (None, Grid(stride_s=1.0, offset_s=float("nan")), "offset finite"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path, shared, own, message):
    with (
        pytest.raises(DataError, match=f"video a: .*{message}"),
        writer(tmp_path / "d", grid=shared) as store,
    ):
        store.add("a", **video(), grid=own)
