"""Domains of searched parameters: their samples, grids and limits."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptal_ray.space.domain import Domain

DOMAINS = [
    Domain(kind="uniform", args=(-1.0, 2.0)),
    Domain(kind="loguniform", args=(1e-5, 1e-2)),
    Domain(kind="quniform", args=(0.3, 0.9, 0.1)),
    Domain(kind="randint", args=(2, 5)),
    Domain(kind="lograndint", args=(1, 100)),
    Domain(kind="choice", args=(1, 5, 50)),
    Domain(kind="choice", args=(True, False)),
]


@pytest.mark.parametrize("domain", DOMAINS)
@given(unit=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=50)
def test_every_sample_lies_inside(domain, unit):
    assert domain.contains(domain.sample(unit))


@pytest.mark.parametrize("domain", DOMAINS)
def test_grids_lie_inside_and_reach_both_ends(domain):
    grid = domain.grid(4)
    assert all(domain.contains(v) for v in grid)
    assert len(set(grid)) == len(grid)
    for end in domain.extremes():
        assert end in grid
    assert len(domain.grid(1)) >= 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_survive_json(domain):
    assert Domain.from_dict(json.loads(json.dumps(domain.as_dict()))) == domain


def test_samples_follow_the_distribution():
    units = [(k + 0.5) / 10000 for k in range(10000)]
    log = [math.log10(DOMAINS[1].sample(u)) for u in units]
    assert sum(log) / len(log) == pytest.approx(-3.5, abs=1e-3)
    whole = [DOMAINS[3].sample(u) for u in units]
    assert [whole.count(k) for k in (2, 3, 4)] == pytest.approx([3333, 3333, 3333], abs=2)
    steps = [DOMAINS[2].sample(u) for u in units]
    assert sorted(set(steps)) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert DOMAINS[4].sample(0.0) == 1


@pytest.mark.parametrize(
    ("domain", "outside"),
    [
        (DOMAINS[0], 2.1), (DOMAINS[0], True), (DOMAINS[0], "1"), (DOMAINS[2], 0.35),
        (DOMAINS[3], 5), (DOMAINS[3], 2.0), (DOMAINS[5], True), (DOMAINS[6], 1),
    ],
)  # fmt: skip
def test_values_outside_are_told_apart(domain, outside):
    assert not domain.contains(outside)
