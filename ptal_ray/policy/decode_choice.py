"""Which decode setting an arm gets: chosen over all its cells together, the default unless beaten.

Every cell has the objective of every decode setting; setting 0 is the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BORROWED = 2.0  # cells that what other arms gain by a setting counts for


def choose(arms: Sequence[Floats], arm: int) -> int:
    """The decode setting of an arm: the best by its cells and, as if it were 2 more cells, by those
    of the other arms; the default where that is not better by a standard error.

    Args:
        arms: one an arm, (cells, J) objectives; arms without cells have none.
        arm: which one.
    """
    gain, spread = _gains(arms, arm)
    return _best(_effects(arms[arm]), gain, spread)


def out_of_cell(arms: Sequence[Floats], arm: int) -> Floats:
    """(cells,) objectives of an arm, each at the setting that its other cells choose."""
    gain, spread = _gains(arms, arm)
    own = _effects(arms[arm])
    chosen = [_best(np.delete(own, k, axis=0), gain, spread) for k in range(len(own))]
    return arms[arm][np.arange(len(own)), chosen]


def _effects(own: Floats) -> Floats:
    return own - own[:, :1]


def _gains(arms: Sequence[Floats], arm: int) -> tuple[Floats, Floats]:
    """(J,) mean gain over the default setting of the better half of the other arms, its variance
    between cells."""
    others = [own for k, own in enumerate(arms) if k != arm and len(own)]
    settings = arms[arm].shape[1]
    if not others:
        return np.zeros(settings), np.full(settings, np.inf)
    level = np.array([own[:, 0].mean() for own in others])
    good = [own for own, value in zip(others, level, strict=True) if value >= np.median(level)]
    rows = np.concatenate([_effects(own) for own in good])
    gain = np.mean([_effects(own).mean(axis=0) for own in good], axis=0)
    return gain, rows.var(axis=0, ddof=1) if len(rows) > 1 else np.full(settings, np.inf)


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
