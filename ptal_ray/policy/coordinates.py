"""Configurations as points; similar ones are close."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptal_ray.space.domain import Domain, Scalar


def coordinates(domains: Mapping[str, Domain], params: Mapping[str, Scalar]) -> NDArray[np.float64]:
    """(D,) coordinates of a configuration: numbers between 0 and 1 on the scale of their domain,
    and one coordinate per option of a choice. A value outside its domain is outside [0, 1]."""
    found: list[float] = []
    for name, domain in domains.items():
        value = params[name]
        if domain.kind == "choice":
            found += [math.sqrt(0.5) * (value == option) for option in domain.args]
        else:
            found.append(_unit(domain, float(value)))
    return np.array(found or [0.0])


def _unit(domain: Domain, value: float) -> float:
    low, high = float(domain.args[0]), float(domain.args[1])
    if domain.kind in ("loguniform", "lograndint"):
        low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
    return (value - low) / (high - low) if high > low else 0.0
