"""The arms and cells of a race, and its recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptal_ray.policy.gate import Difference

Floats = NDArray[np.float64]
SCREEN, RACE, GATE = EVERY = "screen", "race", "gate"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run: an arm, the number of its cell (which determines fold and seed), and its
    stage.

    Cell k has the same fold and seed for every arm, so that arms are compared on the same cells.
    """

    arm: int
    index: int
    stage: str


@dataclass(kw_only=True)
class Arm:
    """A configuration: its coordinates, and the objectives at all decode settings by cell."""

    coordinates: Floats
    cells: dict[int, Floats] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)  # of all started cells
    pending: set[int] = field(default_factory=set)
    stopped: bool = False  # failed, or ended early: out of the race

    def scores(self, stages: Sequence[str] = (SCREEN, RACE)) -> Floats:
        """(cells, J) objectives of the finished cells of some stages, by number."""
        kept = [self.cells[k] for k in sorted(self.cells) if self.stages[k] in stages]
        return np.stack(kept) if kept else np.zeros((0, 1))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The recommendation of a race.

    Args:
        arm: the recommended arm; 0 for the defaults.
        setting: its decode setting; 0 for the default one.
        verdict: "better" than the defaults, "tie" (not distinguishable, or not compared before the
            time ended; the defaults are kept), or "defaults" (no better arm was found).
        difference: of the recommended arm, or if the defaults are kept of the best other arm, to
            the defaults with default decoding, on the cells of the gate.
        finalist, finalist_setting: the arm compared with the defaults in the gate; 0 for none.
    """

    arm: int
    setting: int
    verdict: str
    difference: Difference
    finalist: int
    finalist_setting: int
