"""Simulated points that are moved, left out or of a wrong class."""

from __future__ import annotations

import numpy as np

from ptal_ray.data.point_noise import PointNoise, disturbed
from ptal_ray.data.types import Points

MANY = Points(time_s=np.linspace(40, 60, 4000), label=np.arange(4000) % 5)


def noisy(points: Points = MANY, classes: int = 5, **noise: float) -> Points:
    rng = np.random.default_rng(0)
    return disturbed(points, PointNoise(**noise), rng, 100.0, classes)


def test_without_noise_points_stay_and_draw_nothing() -> None:
    rng = np.random.default_rng(0)
    found = disturbed(MANY, PointNoise(), rng, 100.0, 5)
    assert found.time_s.tolist() == MANY.time_s.tolist()
    assert found.label.tolist() == MANY.label.tolist()
    assert rng.random() == np.random.default_rng(0).random()


def test_dropout_leaves_out_a_share() -> None:
    found = noisy(dropout=0.3)
    assert 0.67 < len(found) / len(MANY) < 0.73
    assert set(found.time_s) < set(MANY.time_s)


def test_jitter_is_gaussian_and_stays_in_the_video() -> None:
    same = Points(time_s=np.full(4000, 50.0), label=np.zeros(4000, np.int64))
    found = noisy(same, jitter_s=2.0)
    assert abs(found.time_s.mean() - 50) < 0.2 and 1.9 < found.time_s.std() < 2.1
    far = noisy(jitter_s=500.0).time_s
    assert (far.min(), far.max()) == (0.0, 100.0)
    assert (np.diff(far) >= 0).all()


def test_label_noise_gives_other_classes_alike() -> None:
    same = Points(time_s=np.arange(4000.0) / 100, label=np.full(4000, 2))
    found = noisy(same, label_noise=0.4)
    share = np.bincount(found.label, minlength=5) / len(found)
    assert 0.57 < share[2] < 0.63
    assert (np.abs(np.delete(share, 2) - 0.1) < 0.02).all()
    assert set(noisy(same, label_noise=1.0).label) == {0, 1, 3, 4}
    one = Points(time_s=same.time_s, label=np.zeros(4000, np.int64))
    assert not noisy(one, classes=1, label_noise=1.0).label.any()


def test_one_kind_of_noise_does_not_change_another() -> None:
    moved = noisy(jitter_s=1.0)
    both = noisy(jitter_s=1.0, dropout=0.5)
    assert set(both.time_s) < set(moved.time_s)
