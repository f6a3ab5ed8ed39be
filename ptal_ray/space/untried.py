"""Finds configurations that a study has not tried yet."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from ptal_ray.space.domain import Domain, Scalar

Point = tuple[Scalar, ...]  # the values of a configuration in the order of the domains


def number_of_points(domains: Mapping[str, Domain]) -> int | None:
    """Number of different configurations; None if a domain has real numbers."""
    sizes = [domain.size for domain in domains.values()]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def point(domains: Mapping[str, Domain], params: Mapping[str, Scalar]) -> Point | None:
    """The identity of a configuration; None if `params` lacks a value.

    Values of quniform are rounded to 12 digits, so that equal steps compare equal.
    """
    if not domains.keys() <= params.keys():
        return None
    return tuple(
        float(f"{params[name]:.12g}") if domain.kind == "quniform" else params[name]
        for name, domain in domains.items()
    )


def untried(
    domains: Mapping[str, Domain],
    wanted: Mapping[str, Scalar],
    tried: Collection[Point | None],
    rng: np.random.Generator,
) -> dict[str, Scalar] | None:
    """`wanted` if it is new, else the next new configuration after a random one.

    Args:
        domains: of a finite space.
        wanted: a configuration of this space.
        tried: the configurations that are taken.
        rng: for the random configuration.

    Returns:
        A configuration that is not in `tried`, or None if all are.
    """
    if point(domains, wanted) not in tried:
        return dict(wanted)
    total = number_of_points(domains)
    assert total is not None, "a space of real numbers cannot be enumerated"
    first = int(rng.integers(min(total, 2**62)))
    for offset in range(min(total, len(tried) + 1)):  # one of these is new, unless all are taken
        found = _numbered(domains, (first + offset) % total)
        if point(domains, found) not in tried:
            return found
    return None


def _numbered(domains: Mapping[str, Domain], index: int) -> dict[str, Scalar]:
    """Configuration number `index` in the enumeration of all."""
    params: dict[str, Scalar] = {}
    for name, domain in domains.items():
        size = domain.size
        assert size is not None
        index, place = divmod(index, size)
        params[name] = domain.at(place)
    return params
