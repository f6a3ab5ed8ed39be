"""An ensemble of the best arms of a race: their scores averaged before decoding.

Chosen and judged on the out-of-fold scores that the cells of the race left in their folders.

Source: Caruana et al. 2004, Ensemble selection from libraries of models, greedy with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ptal_ray.policy.gate import ERROR_RATE, Difference, compare

SIZE = 5  # members, one that is taken twice counts twice
Members = tuple[int, ...]  # arms, ascending
Judge = Callable[[Members, int], float]


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """What was chosen.

    Args:
        members: arms; of one that is there twice the scores count twice.
        value: mean objective over the cells, of each with members chosen on the others.
        difference: of these values to the single arm.
        leads: whether no other arm alone is better than the single one over the cells.
    """

    members: Members
    value: float
    difference: Difference
    leads: bool

    @property
    def lacks(self) -> str:
        """Why it may not replace the single arm; "" where it passes the test.

        The cells also chose which arms are here. Where the single one is the best of them, it was
        as lucky there as the others, and the test errs more rarely than it says.
        """
        if len(set(self.members)) < 2:
            return "no other arm improves it"
        if not self.leads:
            return "an arm alone is better in these cells, which have chosen it"
        return "" if self.difference.p <= ERROR_RATE else "the difference is within the noise"


def choose_members(single: int, arms: Sequence[int], cells: Sequence[int], judge: Judge) -> Members:
    """Arms whose averaged scores are best over cells, grown one by one from a single arm.

    Args:
        single: where it starts.
        arms: that may be added, also again.
        cells: that judge.
        judge: the objective of members in a cell.
    """

    def value(members: Members) -> float:
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
    """The ensemble by all cells, and what one is worth whose members the other cells chose.

    Args:
        single, arms, judge: as for `choose_members`.
        cells: two or more, in which all these arms have scores.
    """
    known: dict[tuple[Members, int], float] = {}

    def kept(members: Members, cell: int) -> float:
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
        difference=compare(apart, 0.0, fresh=False),
    )


def common_cells(
    cells: Mapping[int, set[int]], single: int, most: int
) -> tuple[list[int], list[int]]:
    """The arms that share two cells or more with `single`, at most `most` of them with it, and the
    cells that all of these have.

    Args:
        cells: of each arm, the best arms first.
        single: an arm of them.
        most: arms.
    """
    arms, shared = [single], set(cells[single])
    for arm, own in cells.items():
        if arm != single and len(arms) < most and len(shared & own) > 1:
            arms.append(arm)
            shared &= own
    return arms, sorted(shared)
