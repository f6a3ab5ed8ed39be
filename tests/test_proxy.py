"""Rank correlation and regret of a stand-in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from ptal_ray.ops.proxy import judge_proxy, rank_correlation


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_spearmans_with_ties(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    expected = spearmanr(a, b).statistic
    assert rank_correlation(a.astype(float), b.astype(float)) == pytest.approx(expected)


def test_a_constant_has_no_correlation():
    assert math.isnan(rank_correlation(np.ones(3), np.arange(3.0)))
    found = judge_proxy([0.1, 0.2], [0.0, 0.0], [0, 1])
    assert math.isnan(found.correlation.value) and math.isnan(found.correlation.low)
    assert found.regret.value == pytest.approx(0.1)  # the first of equal ones is chosen


def test_regret_is_what_the_choice_loses():
    truth, proxy = [0.5, 0.7, 0.6, 0.1], [0.2, 0.8, 0.9, 0.0]
    found = judge_proxy(truth, proxy, [0, 0, 1, 1])
    assert (found.best, found.chosen, found.candidates) == (0.7, 0.6, 4)
    assert found.regret.value == pytest.approx(0.1)
    assert found.spread == pytest.approx(0.7 - 0.55)
    # Draws: both groups (0.1), the first twice (0) or the second twice (0).
    assert (found.regret.low, found.regret.high) == pytest.approx((0.0, 0.1))


def test_a_perfect_stand_in_loses_nothing():
    truth = np.linspace(0, 1, 40)
    found = judge_proxy(truth, 3 * truth - 1, np.arange(40) // 4)
    assert found.correlation.value == found.correlation.low == pytest.approx(1)
    assert found.regret.high == 0


def test_the_same_seed_draws_the_same():
    rng = np.random.default_rng(0)
    truth, proxy, group = rng.random(30), rng.random(30), np.arange(30) // 3
    assert judge_proxy(truth, proxy, group) == judge_proxy(truth, proxy, group)
    found = judge_proxy(truth, proxy, group)
    assert found.correlation.low < found.correlation.value < found.correlation.high
