"""Which decode setting an arm of a race gets."""

from __future__ import annotations

import numpy as np
import pytest

from ptal_ray.policy.decode_choice import choose, out_of_cell


def test_the_default_setting_wins_unless_beaten_clearly():
    rng = np.random.default_rng(0)
    flat = [0.5 + 0.02 * rng.normal(size=(n, 5)) for n in (3, 2, 1, 1)]
    assert sum(choose(flat, k) for k in range(4)) <= 4
    for defaults in ([], [np.zeros((6, 5))]):  # ones that failed say nothing of the noise
        chosen = [
            choose([*defaults, *(0.5 + 0.02 * rng.normal(size=(2, 5)) for _ in range(10))], 5)
            for _ in range(200)
        ]
        assert np.mean(np.array(chosen) > 0) < 0.25
    clear = [own + np.array([0, 0, 0.1, 0, 0]) for own in flat]
    assert [choose(clear, k) for k in range(4)] == [2] * 4
    assert choose([clear[2]], 0) == 0  # one cell alone says nothing


def test_an_arm_gets_its_own_setting_where_arms_differ_more_than_cells():
    """Others gain 0.05 by setting 1. An arm that loses in both its cells keeps the default if arms
    differ, and an arm that gains nothing follows the others if only cells differ."""
    rng = np.random.default_rng(0)

    def others(between, within):
        gains = 0.05 + between * rng.normal(size=(8, 1)) + within * rng.normal(size=(8, 3))
        return [np.stack([np.full(3, 0.5), 0.5 + row], axis=1) for row in gains]

    loses = np.array([[0.5, 0.47], [0.5, 0.47]])
    equal = np.array([[0.5, 0.505], [0.5, 0.495]])
    assert choose([*others(0.05, 0.003), loses], 8) == 0
    assert choose([*others(0.05, 0.003), equal], 8) == 0
    assert choose([*others(0.0, 0.03), equal], 8) == 1


def test_an_arm_alone_or_with_one_cell_of_another_follows_its_own_cells():
    gains = np.array([[0.5, 0.6], [0.5, 0.61], [0.5, 0.59], [0.5, 0.6]])
    assert choose([gains], 0) == choose([gains, np.array([[0.4, 0.4]])], 0) == 1


@pytest.mark.parametrize("score", [0.0, 0.6, 0.7, 0.9])
def test_the_setting_of_a_cell_does_not_depend_on_the_cell(score):
    own = np.array([[0.5, score], [0.5, 0.53], [0.5, 0.54]])
    for others in ([], [np.array([[0.5, 0.52], [0.5, 0.53]])]):
        assert out_of_cell([own, *others], 0)[0] == score


def test_a_cell_is_judged_at_the_setting_that_the_others_choose():
    own = np.array([[0.5, 0.9, 0.5], [0.5, 0.5, 0.8], [0.5, 0.5, 0.8], [0.5, 0.5, 0.8]])
    others = [np.full((2, 3), 0.4) + np.array([0, 0, 0.2]) for _ in range(3)]
    found = out_of_cell([own, *others], 0)
    assert found[0] == 0.5  # its own luck at setting 1 is not counted
    assert found[1:].tolist() == [0.8, 0.8, 0.8]
