"""An ensemble of the best arms of a race: their scores averaged before decoding.

Chosen and evaluated on the out-of-fold scores in the folders of the race's cells.

Source: Caruana et al. 2004, Ensemble selection from libraries of models, greedy with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptal_ray.policy.gate import ERROR_RATE, Difference, compare

SIZE = 5  # members; one that is chosen twice counts twice
LEAST_VARIANCE = 1e-4  # of the difference in a cell: few cells can be equal by chance
Members = tuple[int, ...]  # arms, ascending
Judge = Callable[[Members, int], float]


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The chosen ensemble.

    Args:
        members: arms; the scores of one that appears twice count twice.
        value: mean objective over the cells, each with members chosen on the other cells.
        difference: of these values to those of the single arm.
        leads: whether no other single arm is better over the cells.
    """

    members: Members
    value: float
    difference: Difference
    leads: bool

    @property
    def lacks(self) -> str:
        """Why it may not replace the single arm; "" if it passes the test.

        The arms were selected on the same cells. If the single arm is the best of them, its scores
        are as biased as those of the others, and the error rate of the test is below the stated
        one.
        """
        if len(set(self.members)) < 2:
            return "no other arm improves it"
        if not self.leads:
            return "an arm alone is better in these cells, which have chosen it"
        return "" if self.difference.p <= ERROR_RATE else "the difference is within the noise"


def choose_members(single: int, arms: Sequence[int], cells: Sequence[int], judge: Judge) -> Members:
    """The arms with the best averaged scores over cells, added one by one to a single arm.

    Args:
        single: the first arm.
        arms: arms that may be added, also repeatedly.
        cells: cells to evaluate on.
        judge: the objective of members in a cell.
    """

    def value(members: Members) -> float:
        """Mean score of an ensemble over the cells."""
        return float(np.mean([judge(members, cell) for cell in cells]))

    best: Members = (single,)
    best_value = value(best)
    while len(best) < SIZE:
        wider = [tuple(sorted((*best, arm))) for arm in arms]
        values = [value(members) for members in wider]
        if not wider or max(values) <= best_value:
            return best
        best, best_value = wider[int(np.argmax(values))], max(values)
    return best


def find_ensemble(single: int, arms: Sequence[int], cells: Sequence[int], judge: Judge) -> Ensemble:
    """The ensemble chosen on all cells, and its value with members chosen on the other cells.

    Args:
        single, arms, judge: as for `choose_members`.
        cells: two or more cells in which all these arms have scores.
    """
    known: dict[tuple[Members, int], float] = {}

    def kept(members: Members, cell: int) -> float:
        """The score of an ensemble in a cell, computed once."""
        if (members, cell) not in known:
            known[members, cell] = judge(members, cell)
        return known[members, cell]

    found = []
    for cell in cells:
        others = [other for other in cells if other != cell]
        found.append(kept(choose_members(single, arms, others, kept), cell))
    alone = {arm: float(np.mean([kept((arm,), cell) for cell in cells])) for arm in arms}
    apart = [value - kept((single,), cell) for value, cell in zip(found, cells, strict=True)]
    return Ensemble(
        leads=max(alone.values()) <= float(np.mean([kept((single,), cell) for cell in cells])),
        members=choose_members(single, arms, cells, kept),
        value=float(np.mean(found)),
        difference=compare(apart, LEAST_VARIANCE, fresh=False, level=ERROR_RATE),
    )


def common_cells(
    cells: Mapping[int, set[int]], single: int, most: int
) -> tuple[list[int], list[int]]:
    """Arms that share two or more cells with `single`, at most `most` including it, and their
    common cells.

    Args:
        cells: the cells of each arm, best arms first.
        single: one of these arms.
        most: maximal number of arms.
    """
    arms, shared = [single], set(cells[single])
    for arm, own in cells.items():
        if arm != single and len(arms) < most and len(shared & own) > 1:
            arms.append(arm)
            shared &= own
    return arms, sorted(shared)
