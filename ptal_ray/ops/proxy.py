"""The quality of a proxy measure: rank correlation with the truth, and regret of its choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COVERED = 0.95  # of an interval
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The result of choosing by a proxy.

    Args:
        correlation: Spearman's, of the proxy with the truth; NaN if one of them is constant.
        regret: truth of the best candidate minus truth of the one that the proxy chooses.
        best, chosen: these two.
        spread: truth of the best minus that of the median candidate.
        candidates: their number.
    """

    correlation: Estimate
    regret: Estimate
    best: float
    chosen: float
    spread: float
    candidates: int


def judge_proxy(truth: Any, stand_in: Any, group: Any) -> Proxy:
    """Compare a proxy with the truth.

    Intervals are those of a bootstrap over groups, whose candidates are not independent.

    Args:
        truth, stand_in: (N,) true and proxy values of the candidates, higher is better; of equal
            proxy values the first is chosen.
        group: (N,) integers, such as the configuration of a candidate.
    """
    real, proxy = np.asarray(truth, np.float64), np.asarray(stand_in, np.float64)
    groups = np.asarray(group)
    rows = [np.flatnonzero(groups == own) for own in np.unique(groups)]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        chosen = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        drawn.append((rank_correlation(real[chosen], proxy[chosen]),
                      _regret(real[chosen], proxy[chosen])))  # fmt: skip
    correlations, regrets = np.array(drawn).T
    return Proxy(
        correlation=_estimate(rank_correlation(real, proxy), correlations),
        regret=_estimate(_regret(real, proxy), regrets),
        best=float(real.max()),
        chosen=float(real[proxy.argmax()]),
        spread=float(real.max() - np.median(real)),
        candidates=len(real),
    )


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; equal values share their mean rank; NaN for a constant."""
    places = [ranks(values) - (len(values) - 1) / 2 for values in (a, b)]
    scale = np.sqrt((places[0] ** 2).sum() * (places[1] ** 2).sum())
    return float((places[0] * places[1]).sum() / scale) if scale > 0 else float("nan")


def ranks(values: Floats) -> Floats:
    """Ranks from 0 on; equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    found: Floats = middle[place]
    return found


def _regret(truth: Floats, stand_in: Floats) -> float:
    return float(truth.max() - truth[stand_in.argmax()])


def _estimate(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(known, [(1 - COVERED) / 2, (1 + COVERED) / 2]).tolist()
    return Estimate(value=value, low=low, high=high)
