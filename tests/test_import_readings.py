"""How often and by which threads an import reads features; what it says meanwhile."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from import_layout import small_layout

from ptal_ray.data.features import half, precision
from ptal_ray.data.features.normalize import scale_sums
from ptal_ray.data.importing import importer
from ptal_ray.data.importing.importer import import_dataset
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


@pytest.fixture
def layout(tmp_path):
    return small_layout(tmp_path)


def test_progress_is_told(layout):
    seen = []
    import_dataset(
        layout.source(), layout.out, progress=lambda done, total: seen.append((done, total))
    )
    once = [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert seen == once
    seen.clear()
    import_dataset(
        layout.source(normalize=True), layout.path / "scaled",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(0, 2), (1, 2), (2, 2), *once]  # the training split first


@pytest.mark.parametrize(
    ("offset", "scale", "dtype", "stored", "readings"),
    [
        (0, 1, "auto", "float16", 1),
        (0, 1, "float32", "float32", 1),
        (20_000, 1, "auto", "float32", 2),  # float16 loses too much
        (0, 1e6, "auto", "float32", 2),  # float16 overflows
    ],
)
def test_features_are_read_again_only_for_another_type(
    layout, monkeypatch, offset, scale, dtype, stored, readings
):
    rng, read = np.random.default_rng(1), []
    for id in "abc":
        layout.save(id, (rng.random((20, 4)) * scale + offset).astype(np.float32))
    found = importer._surveyed
    monkeypatch.setattr(importer, "_surveyed", lambda *a: read.append(a[1].id) or found(*a))
    import_dataset(layout.source(), layout.out, dtype=dtype)
    store = FeatureStore.open(layout.out)
    store.verify()
    assert store.dtype == stored and read == readings * ["a", "b", "c"]
    assert [p.name for p in layout.path.iterdir() if "out" in p.name] == ["out"]


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_any_number_of_workers_writes_the_same_store(layout, dtype, monkeypatch):
    hashes = set()
    for workers, large in ((1, half.LARGE), (1, 1), (3, 1)):
        monkeypatch.setattr(half, "LARGE", large)
        monkeypatch.setattr(precision, "LARGE", large)
        out = layout.path / f"{workers}_{large}"
        import_dataset(layout.source(), out, dtype=dtype, workers=workers)
        store = FeatureStore.open(out)
        assert store.dtype == ("float16" if dtype == "auto" else dtype)
        hashes.add((store.info.content_hash, (out / "features.arrow").read_bytes()))
    assert len(hashes) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_workers_read_what_is_normalized(layout, workers, monkeypatch):
    made, readers = {}, []

    def noted(id, features):
        readers.append(threading.current_thread())
        return scale_sums(id, features)

    monkeypatch.setattr(importer, "scale_sums", noted)
    for name, number in (("alone", 1), ("together", workers)):
        readers.clear()
        import_dataset(layout.source(normalize=True), layout.path / name, workers=number)
        store = FeatureStore.open(layout.path / name)
        found = store.preparation.scale
        made[name] = (store.info.content_hash, found.mean.tobytes(), found.spread.tobytes())
    assert made["alone"] == made["together"]
    assert len(readers) == 2 and (threading.main_thread() in readers) == (workers == 1)


def test_workers_name_the_first_bad_file_and_leave_nothing(layout):
    for id in ("b", "c"):
        layout.save(id, np.full((20, 4), np.nan, np.float32))
    with pytest.raises(DataError, match="video b: .*and 1 more"):
        import_dataset(layout.source(), layout.out, workers=3)
    assert not list(layout.path.glob("*out*"))
