from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ptal_ray.data.datasets import find, protocol
from ptal_ray.data.readers import watch
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "watch"
    watch.assemble(path)
    return FeatureStore.open(path)


def test_sessions_instances_and_background_match_the_recipe(store):
    ids = store.ids("train") + store.ids("test")
    found = [store.annotations(id) for id in ids]
    instances = sum(map(len, found))
    active_s = sum(float((f.end_s - f.start_s).sum()) for f in found)
    duration_s = sum(map(store.duration_s, ids))
    assert len(ids) == 20 and instances == 240
    assert 0.40 < 1 - active_s / duration_s < 0.46
    lengths = np.concatenate([f.end_s - f.start_s for f in found])
    assert lengths.min() >= 3 and lengths.max() <= 10
    assert (store.info.num_classes, store.info.feature_dim) == (4, 87)
    assert store.info.note == "real smartwatch signals, assembled timeline"
    assert protocol("watch").tiou[0] == 0.1


def test_no_subject_is_on_both_sides_and_each_class_is(store):
    train, test = ({id.split("_")[0] for id in store.ids(s)} for s in ("train", "test"))
    assert (len(train), len(test)) == (7, 3) and not train & test
    for subset in ("train", "test"):
        labels = np.concatenate([store.annotations(id).label for id in store.ids(subset)])
        assert set(labels) == {0, 1, 2, 3}


def test_a_training_instance_has_one_point_inside(store):
    for id in store.ids("train"):
        points, found = store.points(id), store.annotations(id)
        inside = (points.time_s[:, None] >= found.start_s) & (points.time_s[:, None] < found.end_s)
        np.testing.assert_array_equal(inside.sum(axis=0), 1)
        np.testing.assert_array_equal(points.label, found.label[inside.argmax(axis=1)])


def test_neighbouring_bouts_differ_and_features_are_standardised(store):
    for id in store.ids("test"):
        found, features = store.annotations(id), store.video(id).features
        touching = found.start_s[1:] == found.end_s[:-1]
        assert (found.label[1:] != found.label[:-1])[touching].all()
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-3)


def test_the_grid_centres_a_snippet_on_its_window(store):
    id = store.ids("train")[0]
    grid, length = store.info.grid, store.length(id)
    assert grid.seconds(0) == 0.25 and grid.seconds(1) == 0.75  # its window is [0, 1) s
    assert store.duration_s(id) - 1 - 0.5 < (length - 1) * grid.stride_s <= store.duration_s(id) - 1


def test_features_of_known_signals():
    time_s = np.arange(150) / 50
    signal = np.stack([np.sin(2 * np.pi * k * time_s) for k in range(1, 7)], axis=1)
    signal[50:] *= np.linspace(1, 3, 100)[:, None]  # else each feature is constant
    features = watch.snippet_features(signal)
    assert features.shape == (5, 87) and np.isfinite(features).all()


def test_the_content_is_the_same_every_time(store, tmp_path):
    watch.assemble(tmp_path / "watch")
    assert FeatureStore.open(tmp_path / "watch").info.content_hash == store.info.content_hash


def test_first_uses_at_the_same_time_are_safe(tmp_path):
    code = "from ptal_ray.data.datasets import find; print(find('watch').info.content_hash)"
    environment = {"PTAL_DATA": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    hashes = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0] and len(hashes) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["watch"]


def test_it_is_assembled_on_first_use_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "new"))
    assert find("watch").path == tmp_path / "new" / "watch"


def test_without_seglearn_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="seglearn, which is not installed; pip install seglearn"):
        watch.assemble(tmp_path / "watch")
    assert not any(tmp_path.iterdir())


def test_other_recordings_are_refused_before_they_are_unpickled(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SHA256", "0")
    with pytest.raises(DataError, match="not the recordings of seglearn 1.2"):
        watch.assemble(tmp_path / "watch")
