"""Whether what a search found is shipped in place of the defaults: a test with a stated error rate.

Both are trained again on fresh cells, the same for both, so that their differences are paired. The
claim is about new folds and seeds of the training videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ERROR_RATE = 0.05
PRIOR_CELLS = 3.0  # what the noise of the whole search counts for in that of the difference


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean of paired differences, and its one-sided test against 0.

    Args:
        mean, low, high: fractions of mAP; the interval covers 1 - 2 x the error rate.
        p: probability of such a mean or a larger one where the true difference is 0.
        cells: pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    cells: int


NO_DIFFERENCE = Difference(mean=0.0, low=0.0, high=0.0, p=1.0, cells=0)


def compare(differences: Sequence[float], noise: float) -> Difference:
    """Tests paired differences with a t test whose variance leans on that of the whole search.

    Args:
        differences: one a cell.
        noise: variance of one cell, as `Belief.noise`; a difference of two has twice that.

    Source: Smyth 2004, moderated t statistics, with a fixed prior weight.
    """
    d = np.asarray(differences, float)
    n = len(d)
    if not n:
        return Difference(mean=0.0, low=-1.0, high=1.0, p=1.0, cells=0)
    freedom = PRIOR_CELLS + n - 1
    own = float(d.var(ddof=1)) if n > 1 else 0.0
    error = np.sqrt((PRIOR_CELLS * 2 * noise + (n - 1) * own) / freedom / n)
    mean = float(d.mean())
    reach = float(stats.t.ppf(1 - ERROR_RATE, freedom) * error)
    p = float(stats.t.sf(mean / error, freedom)) if error else float(mean <= 0)
    return Difference(mean=mean, low=mean - reach, high=mean + reach, p=p, cells=n)


def accepted(p: Sequence[float], rate: float = ERROR_RATE) -> list[bool]:
    """Which tests pass when all of them together may err at `rate`. Source: Holm 1979."""
    passed = [False] * len(p)
    for rank, k in enumerate(np.argsort(p)):
        if p[k] > rate / (len(p) - rank):
            break
        passed[k] = True
    return passed
