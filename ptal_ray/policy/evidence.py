"""The scores of the arms of a race before its gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptal_ray.policy.belief import Belief, believe
from ptal_ray.policy.decode_choice import all_out_of_cell

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Scores of arms after a number of outcomes: (cells, J) objectives of each, the numbers of its
    cells, and (A, D) coordinates."""

    arms: list[int]
    scores: list[Floats]
    cells: list[list[int]]
    places: Floats
    outcomes: int

    @cached_property
    def _chosen(self) -> list[Floats]:
        """(cells,) scores of each arm, each at the setting chosen on its other cells."""
        return all_out_of_cell(self.scores)

    def gain(self, arm: int) -> float:
        """The mean gain of an arm by its decode setting, over the default one."""
        row = self.arms.index(arm)
        return float((self._chosen[row] - self.scores[row][:, 0]).mean())

    def believed(self, num_folds: int) -> Belief:
        """The posterior of the arms, each at its decode setting."""
        row = [k for k, own in enumerate(self.cells) for _ in own]
        cell = [index for own in self.cells for index in own]
        score = np.concatenate(self._chosen)
        return believe(score.tolist(), row, cell, [c % num_folds for c in cell], self.places)
