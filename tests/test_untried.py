"""Configurations that were not tried: counted, told apart, and each handed out once."""

from __future__ import annotations

import numpy as np
import pytest

from ptal_ray.space.domain import Domain
from ptal_ray.space.untried import number_of_points, point, untried

FINITE = {
    "batch_size": Domain(kind="choice", args=(2, 4)),
    "width": Domain(kind="randint", args=(3, 6)),
    "share": Domain(kind="quniform", args=(0.1, 0.4, 0.1)),
    "deep": Domain(kind="lograndint", args=(1, 3)),
}
TOTAL = 2 * 3 * 4 * 2


def test_points_are_counted_where_they_can_be() -> None:
    assert number_of_points(FINITE) == TOTAL
    assert number_of_points({}) == 1
    for kind in ("uniform", "loguniform"):
        assert number_of_points(FINITE | {"lr": Domain(kind=kind, args=(0.1, 0.2))}) is None


def test_every_value_of_a_domain_has_a_number() -> None:
    for domain in FINITE.values():
        assert domain.size is not None
        values = [domain.at(k) for k in range(domain.size)]
        assert len(set(values)) == domain.size
        assert all(domain.contains(value) for value in values)


def test_the_dust_of_stepping_makes_no_other_point() -> None:
    params = {"batch_size": 2, "width": 3, "share": 0.1 + 0.2, "deep": 1}
    assert point(FINITE, params) == (2, 3, 0.3, 1)
    assert point(FINITE, {"width": 3}) is None


@pytest.mark.parametrize("seed", range(3))
def test_each_is_found_once_and_then_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = {"batch_size": 2, "width": 5, "share": 0.2, "deep": 2}
    tried = set()
    for number in range(TOTAL):
        found = untried(FINITE, wanted, tried, rng)
        assert found is not None
        assert number or found == wanted
        tried.add(point(FINITE, found))
    assert len(tried) == TOTAL
    assert untried(FINITE, wanted, tried, rng) is None


def test_a_space_too_large_to_list_is_no_trouble() -> None:
    wide = {f"p{k}": Domain(kind="randint", args=(0, 10**9)) for k in range(8)}
    wanted: dict[str, bool | int | float | str] = dict.fromkeys(wide, 0)
    found = untried(wide, wanted, {point(wide, wanted)}, np.random.default_rng(0))
    assert found is not None and found != wanted
