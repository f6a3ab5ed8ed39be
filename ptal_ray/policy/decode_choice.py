"""Chooses the decode setting of an arm over all its cells; the default unless another is better.

Every cell has the objective of every decode setting; setting 0 is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SMALLEST = 1e-8  # variance: a hundredth of a point of mAP, squared
PRIOR = 2.0  # degrees of freedom of the assumption that half of the variance is within arms
MOST_WITHIN = 2 / 3  # fraction of the variance; then the other arms weigh as much as two cells


def choose(arms: Sequence[Floats], arm: int) -> int:
    """The decode setting of an arm: the one with the best posterior mean of the gain over the
    default, from its own cells and those of the other arms; the default if that is not better by
    a posterior standard deviation.

    The gain by a setting = a mean over arms + a part of the arm + noise of a cell. If the gains of
    arms differ much compared with the noise, the other arms count little.

    Args:
        arms: for each arm (cells, J) objectives; arms without cells have none.
        arm: number of the arm.

    Source: empirical Bayes (Efron & Morris 1975), with variances from the cells themselves.
    """
    return _best(_effects(arms[arm]), _Others(arms).gains(arm))


def out_of_cell(arms: Sequence[Floats], arm: int) -> Floats:
    """(cells,) objectives of an arm, each at the setting chosen on its other cells."""
    return _out_of_cell(arms, arm, _Others(arms))


def all_out_of_cell(arms: Sequence[Floats]) -> list[Floats]:
    """`out_of_cell` of every arm."""
    others = _Others(arms)
    return [_out_of_cell(arms, arm, others) for arm in range(len(arms))]


def _out_of_cell(arms: Sequence[Floats], arm: int, others: _Others) -> Floats:
    if arms[arm].shape[1] == 1:  # nothing to choose
        return arms[arm][:, 0]
    gains = others.gains(arm)
    own = _effects(arms[arm])
    chosen = [_best(np.delete(own, k, axis=0), gains) for k in range(len(own))]
    return arms[arm][np.arange(len(own)), chosen]


def _effects(own: Floats) -> Floats:
    return own - own[:, :1]


@dataclass(frozen=True, kw_only=True)
class _Gains:
    """What is known of the gains of an arm before its own cells.

    Args:
        mean: (J,) over other arms.
        within: (J,) variance between cells of an arm; None if the other arms do not show it.
        weight: of the other arms, in cells.
    """

    mean: Floats
    within: Floats | None = None
    weight: float = 1.0


class _Others:
    """The gains of the other arms by each setting, for one arm after the other."""

    def __init__(self, arms: Sequence[Floats]) -> None:
        known = [k for k, own in enumerate(arms) if len(own)]
        effects = [_effects(arms[k]) for k in known]
        self._arm = np.array(known)
        self._level = np.array([arms[k][:, 0].mean() for k in known])
        self._settings = max(own.shape[1] for own in arms)
        self._gain = np.array([own.mean(axis=0) for own in effects])  # (A, J)
        self._rows = np.concatenate([np.zeros((0, self._settings)), *effects])  # (N, J)
        self._row = np.repeat(np.arange(len(known)), [len(own) for own in effects])
        apart = self._rows - self._gain[self._row]
        self._squares = np.bincount(self._row, (apart**2).sum(axis=1), len(known))  # (A,) in arms

    def gains(self, arm: int) -> _Gains:
        """The gains of the better half of the other arms.

        The variance of all their cells is divided into that between arms and that within an arm.
        The fraction within is the same for all settings; arms of several cells show it.
        """
        other = self._arm != arm
        if not other.any():
            return _Gains(mean=np.zeros(self._settings))
        good = other & (self._level >= np.median(self._level[other]))
        rows = self._rows[good[self._row]]
        mean = self._gain[good].mean(axis=0)
        if len(rows) < 2:
            return _Gains(mean=mean)
        every = np.maximum(rows.var(axis=0, ddof=1), SMALLEST)
        inside = self._squares[good].sum() / every.sum()
        share = min((inside + PRIOR / 2) / (len(rows) - good.sum() + PRIOR), 1.0)
        most = min(share, MOST_WITHIN)
        return _Gains(mean=mean, within=share * every, weight=most / (1 - most))


def _best(effects: Floats, known: _Gains) -> int:
    """The setting with the best posterior mean gain, if above its standard deviation."""
    within = known.within
    if within is None:
        if len(effects) < 2:
            return 0
        within = effects.var(axis=0, ddof=1)
    weight = len(effects) + known.weight
    mean = (effects.sum(axis=0) + known.weight * known.mean) / weight
    best = int(mean.argmax())
    return best if mean[best] > np.sqrt(within[best] / weight) else 0
