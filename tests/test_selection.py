"""The objective and the seal on the test split."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import make_store

from ptal_ray.data.datasets import protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.training.selection import ground_truth, map_metrics


def test_metrics_of_the_protocol():
    per_tiou = np.linspace(0.7, 0.1, 7)
    metrics = map_metrics(per_tiou, protocol("thumos14"))
    assert metrics["mAP_0.50"] == pytest.approx(0.3)
    assert metrics["mAP_avg_0.10-0.50"] == pytest.approx(0.5)
    assert metrics["mAP_avg_0.30-0.70"] == pytest.approx(0.3)
    assert metrics["mAP_avg"] == metrics["mAP_avg_0.10-0.70"] == pytest.approx(0.4)
    assert all(re.fullmatch(r"[\w./ -]+", name) for name in metrics)  # MLflow's alphabet


def test_activitynet_has_one_average():
    metrics = map_metrics(np.full(10, 0.25), protocol("anet13"))
    assert metrics["mAP_avg_0.50-0.95"] == metrics["mAP_avg"] == pytest.approx(0.25)
    assert "mAP_0.95" in metrics


def test_the_test_split_is_sealed(tmp_path):
    store = FeatureStore.open(make_store(tmp_path / "tiny"))
    with pytest.raises(ConfigError, match="may not read the annotations of test video"):
        ground_truth(store, store.ids("train")[:1] + store.ids("test"), "val")
    assert set(ground_truth(store, store.ids("test"), "test")) == set(store.ids("test"))
    assert len(ground_truth(store, store.ids("train"), "val")) == 6


def test_videos_without_any_instance_cannot_select(tmp_path, monkeypatch):
    store = FeatureStore.open(make_store(tmp_path / "tiny"))
    monkeypatch.setattr(FeatureStore, "annotations", lambda self, video: Segments.empty())
    with pytest.raises(DataError, match="no annotated segment in the 6 videos of split 'val'"):
        ground_truth(store, store.ids("train"), "val")
