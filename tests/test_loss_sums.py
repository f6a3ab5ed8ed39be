"""Means and curves of the loss between two reports."""

from __future__ import annotations

import math

import pytest
import torch

from ptal_ray.errors import DivergedError
from ptal_ray.training.loss_sums import POINTS, LossSums


def test_means_are_over_all_steps_and_points_over_their_stretch():
    sums = LossSums(10, 10 + 2 * POINTS)
    values = [float(k) for k in range(2 * POINTS)]
    for k, value in enumerate(values):
        sums.add(11 + k, {"total": torch.tensor(value)})
    means, curves = sums.read(1)
    assert means == {"total": pytest.approx(sum(values) / len(values))}
    assert curves["total"] == [[12 + 2 * k, 2 * k + 0.5] for k in range(POINTS)]


def test_a_term_that_comes_later_has_points_from_then_on():
    sums = LossSums(0, 20)  # stretches of 3 steps, the last one shorter
    for step in range(1, 21):
        more = {"late": torch.tensor(4.0)} if step > 15 else {}
        sums.add(step, {"total": torch.tensor(1.0)} | more)
    means, curves = sums.read(1)
    assert [step for step, _ in curves["total"]] == [3, 6, 9, 12, 15, 18, 20]
    assert curves["late"] == [[18, 4.0], [20, 4.0]]
    assert means == {"total": 1.0, "late": 1.0}


def test_a_mean_that_is_not_finite_is_said():
    sums = LossSums(0, 2)
    for step in (1, 2):
        sums.add(step, {"pem": torch.tensor(math.nan if step == 2 else 1.0)})
    with pytest.raises(DivergedError, match="train/loss_pem: nan by step 2; lower lr"):
        sums.read(1)
