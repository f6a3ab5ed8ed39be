"""Chooses the decode setting of an arm over all its cells; the default unless another is better.

Every cell has the objective of every decode setting; setting 0 is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BORROWED = 2.0  # weight, in cells, of the gains of other arms by a setting


def choose(arms: Sequence[Floats], arm: int) -> int:
    """The decode setting of an arm: the best on its cells and, with the weight of 2 more cells, on
    those of the other arms; the default if that is not better by a standard error.

    Args:
        arms: for each arm (cells, J) objectives; arms without cells have none.
        arm: number of the arm.
    """
    gain, spread = _Others(arms).gains(arm)
    return _best(_effects(arms[arm]), gain, spread)


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
    gain, spread = others.gains(arm)
    own = _effects(arms[arm])
    chosen = [_best(np.delete(own, k, axis=0), gain, spread) for k in range(len(own))]
    return arms[arm][np.arange(len(own)), chosen]


def _effects(own: Floats) -> Floats:
    return own - own[:, :1]


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

    def gains(self, arm: int) -> tuple[Floats, Floats]:
        """(J,) mean gain over the default setting of the better half of the other arms, its
        variance between cells."""
        unknown = np.full(self._settings, np.inf)
        other = self._arm != arm
        if not other.any():
            return np.zeros(self._settings), unknown
        good = other & (self._level >= np.median(self._level[other]))
        rows = self._rows[good[self._row]]
        gain = self._gain[good].mean(axis=0)
        return gain, rows.var(axis=0, ddof=1) if len(rows) > 1 else unknown


def _best(effects: Floats, gain: Floats, variance: Floats) -> int:
    """The setting with the best shrunken gain, if that is more than its standard error."""
    weight = len(effects) + BORROWED
    shrunk = (effects.sum(axis=0) + BORROWED * gain) / weight
    best = int(shrunk.argmax())
    spread = variance[best]
    if len(effects) > 1:
        own = effects[:, best].var(ddof=1)
        spread = own if np.isinf(spread) else (len(effects) * own + BORROWED * spread) / weight
    return best if shrunk[best] > np.sqrt(spread / weight) else 0
