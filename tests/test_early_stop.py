"""Which first cells of a race stop early."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ptal_ray.policy.early_stop import EarlyStop, chance, rank_correlation


def test_nothing_stops_early_before_early_objectives_were_seen_to_tell():
    early = EarlyStop((2, 4, 8), 2)
    for cell, value in enumerate((0.4, 0.3, 0.2, 0.1)):
        assert [early.take(cell, step, value) for step in (2, 4)] == [False, False]
        early.take(cell, 8, value)
    assert early.take(4, 2, 0.0)
    assert not early.take(5, 2, 1.0)


def test_the_rank_correlation_is_that_of_the_cells_with_both():
    early, last = {0: 0.4, 1: 0.1, 2: 0.3, 3: 0.2, 9: 0.9}, {0: 0.8, 1: 0.5, 2: 0.6, 3: 0.7}
    assert rank_correlation(early, last) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert rank_correlation(early, dict.fromkeys(last, 0.5)) == 0.0
    assert rank_correlation(early, {0: 0.8, 1: 0.5, 2: 0.6}) is None


def test_the_chance_of_ending_best_is_that_of_a_regression():
    x, y = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.2, 0.35, 0.5, 0.6, 0.8])
    early, last = dict(enumerate(x)), dict(enumerate(y))
    fit = stats.linregress(x, y)
    left = y - fit.intercept - fit.slope * x
    for value in (0.05, 0.3, 0.45, 0.6):
        spread = np.sqrt(left @ left / 3 * (1.2 + (value - 0.3) ** 2 / 0.1))
        expected = stats.t.sf((0.8 - fit.intercept - fit.slope * value) / spread, 3)
        assert chance(early, last, value) == pytest.approx(expected, rel=0.01)
    assert chance(early, last, 0.1) < 0.01 < 0.9 < chance(early, last, 0.6)
    assert chance(dict.fromkeys(early, 0.3), last, 0.3) == 1.0  # says nothing


def test_a_cell_that_cannot_become_the_best_stops_though_halving_would_go_on():
    """Early objectives that predict the last ones exactly: only a candidate for the best runs."""
    early = EarlyStop((2, 8), 2)
    for cell, value in enumerate((0.1, 0.9, 0.3, 0.5, 0.2)):
        early.take(cell, 2, value)
        early.take(cell, 8, value)
    assert early.take(5, 2, 0.8)
    assert not early.take(6, 2, 0.95)


@pytest.mark.parametrize("full", [8, 20, 50])
def test_few_stop_early_where_early_objectives_do_not_tell(full):
    """However many runs there are: the chance to become the best of many is always small."""
    stopped = []
    for seed in range(60):
        rng, early = np.random.default_rng(seed), EarlyStop((2, 8), 2)
        for cell in range(full):
            early.take(cell, 2, rng.random())
            early.take(cell, 8, rng.random())
        stopped.append(early.take(full, 2, rng.random()))
    assert np.mean(stopped) < 0.25


def test_nothing_stops_early_where_early_objectives_do_not_tell():
    early = EarlyStop((2, 8), 2)
    rng = np.random.default_rng(1)
    for cell in range(12):
        early.take(cell, 2, rng.random())
        early.take(cell, 8, rng.random())
    assert not early.take(12, 2, 0.0)


def test_a_run_without_finite_objectives_does_not_disable_early_stopping():
    early = EarlyStop((2, 8), 2)
    for cell, value in enumerate((0.1, 0.9, 0.3, 0.5, 0.2)):
        early.take(cell, 2, value if cell != 2 else math.nan)
        early.take(cell, 8, value)
    assert early.take(5, 2, 0.1)


def test_a_cell_far_below_the_defaults_stops_after_a_third_of_its_steps():
    early = EarlyStop((3, 9, 27), 3)
    for step, value in ((3, 0.3), (9, 0.6), (27, 0.1)):
        assert not early.take(0, step, value, defaults=True)
    assert not early.take(1, 3, 0.0)  # too early to tell
    assert early.take(1, 9, 0.19)
    assert not early.take(2, 9, 0.2)
    assert not early.take(2, 27, 0.0)  # it has ended


def test_nothing_is_far_below_defaults_without_an_objective():
    early = EarlyStop((9, 27), 3)
    assert not early.take(1, 9, 0.0)  # the defaults have not come that far
    early.take(0, 9, math.nan, defaults=True)
    assert not early.take(2, 9, 0.0)


def test_the_run_of_the_defaults_counts_but_never_stops():
    early = EarlyStop((2, 8), 2)
    for cell, value in enumerate((0.1, 0.9, 0.3, 0.5)):
        assert not early.take(cell, 2, value, defaults=cell == 0)
        early.take(cell, 8, value, defaults=cell == 0)
    assert not early.take(4, 2, 0.2, defaults=True)
    assert early.take(5, 2, 0.2)


def test_a_cell_stopped_far_below_the_defaults_counts_with_its_ratio_to_them():
    """Cells near the defaults do not show that early objectives tell; those far below do."""
    early = EarlyStop((3, 9, 27), 3)
    ended = ((0.30, 0.60, 0.80), (0.29, 0.62, 0.81), (0.28, 0.61, 0.82))
    for cell, values in enumerate(ended):
        for step, value in zip((3, 9, 27), values, strict=True):
            early.take(cell, step, value, defaults=cell == 0)
    assert early.correlation(3) is None and not early.far_below
    assert not early.take(3, 3, 0.01)
    assert early.take(3, 9, 0.06)  # expected to end at 0.08
    assert not early.take(4, 3, 0.02)
    assert early.take(4, 9, 0.12)
    assert early.correlation(3) == pytest.approx(1 - 6 * 8 / (5 * 24))
    assert early.far_below == {3: pytest.approx(0.1), 4: pytest.approx(0.2)}
    assert early.take(5, 3, 0.02)


def test_a_cell_that_stops_before_the_defaults_end_counts_when_they_do():
    early = EarlyStop((3, 9, 27), 3)
    for cell, values in enumerate(((0.30, 0.60), (0.01, 0.06), (0.02, 0.12), (0.03, 0.18))):
        early.take(cell, 3, values[0], defaults=cell == 0)
        assert early.take(cell, 9, values[1], defaults=cell == 0) == (cell > 0)
    assert early.correlation(3) is None
    early.take(0, 27, 0.8, defaults=True)
    assert early.correlation(3) == pytest.approx(1.0)


def test_a_difference_that_is_noise_is_not_far_below():
    early = EarlyStop((9, 27), 3)
    early.take(0, 9, 0.012, defaults=True)
    assert not early.take(1, 9, 0.003)
    assert early.take(2, 9, 0.001)
