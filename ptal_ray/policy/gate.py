"""The test, with a stated error rate, of whether a found configuration replaces the defaults.

Both are trained again on new cells, the same for both, so that their differences are paired. The
result holds for new folds and seeds of the training videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ERROR_RATE = 0.05
TESTS = 2  # that share it: of the finalist and of decoding alone, even if one is empty
LEVEL = ERROR_RATE / TESTS
PRIOR_CELLS = 3.0  # weight of the search's noise in the variance of the difference


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences, and its one-sided test against 0.

    Args:
        mean, low, high: fractions of mAP; `low` is above 0 exactly if the test passes at its
            level. The interval covers 1 - 2 x this level: 95 % in the gate.
        p: probability of such a mean or a larger one if the true difference is 0.
        cells: pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    cells: int


NO_DIFFERENCE = Difference(mean=0.0, low=0.0, high=0.0, p=1.0, cells=0)


def compare(
    differences: Sequence[float], noise: float, *, fresh: bool = True, level: float = LEVEL
) -> Difference:
    """Test paired differences with a t test whose variance is shrunk towards that of the search.

    Args:
        differences: one per cell.
        noise: variance of a difference, estimated from the whole search.
        fresh: whether these cells were used for no choice; else the test is stricter: it uses the
            larger variance, and only the degrees of freedom of the differences.
        level: error rate of this test alone.

    Source: Smyth 2004, moderated t statistics, with a fixed prior weight.
    """
    d = np.asarray(differences, float)
    n = len(d)
    if not n:
        return Difference(mean=0.0, low=-1.0, high=1.0, p=1.0, cells=0)
    mean, own = float(d.mean()), float(d.var(ddof=1)) if n > 1 else 0.0
    freedom = n - 1 + (PRIOR_CELLS if fresh else 0)
    if not freedom:
        return Difference(mean=mean, low=-1.0, high=1.0, p=1.0, cells=n)
    variance = (PRIOR_CELLS * noise + (n - 1) * own) / freedom if fresh else max(noise, own)
    error = np.sqrt(variance / n)
    reach = float(stats.t.ppf(1 - level, freedom) * error)
    p = float(stats.t.sf(mean / error, freedom)) if error else float(mean <= 0)
    return Difference(mean=mean, low=mean - reach, high=mean + reach, p=p, cells=n)


def accepted(p: Sequence[float]) -> list[bool]:
    """Which tests pass if the error rate of all together is ERROR_RATE, by Bonferroni's rule."""
    return [value <= LEVEL for value in p]
