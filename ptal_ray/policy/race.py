"""A race of configurations over cells: many on one cell, the better ones on more, then a gate.

Independent of Optuna, Ray and the origin of scores: it chooses the next cell and takes its scores,
so it also runs on recorded searches. The defaults are arm 0, from the first cell to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ptal_ray.policy.belief import Belief
from ptal_ray.policy.cells import EVERY, GATE, RACE, SCREEN, Arm, Cell, Verdict
from ptal_ray.policy.decode_choice import choose, out_of_cell
from ptal_ray.policy.evidence import Evidence
from ptal_ray.policy.gate import NO_DIFFERENCE, Difference, accepted, compare

Floats = NDArray[np.float64]
SCREENED, RACED = 0.5, 0.75  # fractions of the budget at which screening and racing end
FAR = 1.5  # standard deviations of the difference of two cells: a lead that prolongs screening
LEAST_RACED = 2  # full runs of racing after prolonged screening
SURE = 3.0  # posterior standard deviations above the defaults: an arm races without them
FEWEST_GATE_CELLS, MOST_GATE_CELLS = 2, 8
MOST_BELIEVED = 128  # arms of a posterior, those that scored best: its cost grows with their cube
EVERY_OUTCOME = 32  # later, a posterior is recomputed after a fraction of new outcomes


def gate_cells(budget: float) -> int:
    """Number of cells per side of the gate, for a budget in full runs."""
    return min(max(round(budget * (1 - RACED) / 2), FEWEST_GATE_CELLS), MOST_GATE_CELLS)


class Race:
    """Chooses the next cell, takes outcomes, recommends.

    Args:
        budget: of the whole race, in full runs; a run that ends early counts in part.
        num_folds: cell k is scored on fold k modulo this.
        seed: of the choices among arms.
        propose: returns the coordinates of a new arm by its number, called in order from 0, given
            the posterior mean of each earlier arm (NaN if unknown); None if there is no other arm.
        most_cells: maximal number of cells of an arm; None for no limit.
    """

    def __init__(
        self,
        *,
        budget: float,
        num_folds: int,
        seed: int,
        propose: Callable[[int, Floats], Floats | None],
        most_cells: int | None = None,
    ) -> None:
        self.budget, self.num_folds, self.seed = budget, num_folds, seed
        self.arms: list[Arm] = []
        self.time_share = 0.0  # used fraction of the time; set from outside
        self._propose, self._most_cells = propose, most_cells or 1_000_000
        self._exhausted = False
        self._spent = 0.0
        self._begun = 0
        self._outcomes = 0
        self._due = 0  # number of outcomes at which the posterior is recomputed
        self._evidence: Evidence | None = None
        self._belief: tuple[list[int], Belief] | None = None  # of the evidence, computed on request

    @property
    def gate_cells(self) -> int:
        """Number of cells per side of the gate."""
        return min(gate_cells(self.budget), self._most_cells - 1)

    @property
    def progress(self) -> float:
        """Used fraction of the budget, or of the time if larger, with running cells."""
        return max((self._spent + self._under_way) / self.budget, self.time_share)

    def next(self) -> Cell | None:
        """The next cell; None if none is left or outcomes must come first.

        The caller trains it, then calls `tell` or `drop`.
        """
        cell = self._screened() or self._raced() or self._gated()
        if cell is not None:
            self.begin(cell)
        return cell

    @property
    def waiting(self) -> bool:
        """Whether outcomes of running cells may lead to more cells."""
        return any(arm.pending for arm in self.arms)

    def begin(self, cell: Cell) -> None:
        """Mark a cell as running; used for an interrupted run, after `add` of its arm."""
        arm = self.arms[cell.arm]
        arm.pending.add(cell.index)
        arm.stages[cell.index] = cell.stage
        self._begun += 1

    def add(self, coordinates: Floats) -> int:
        """Add an arm; returns its number."""
        self.arms.append(Arm(coordinates=coordinates))
        return len(self.arms) - 1

    def tell(self, cell: Cell, objectives: Floats, share: float = 1.0) -> None:
        """Take the outcome of a cell.

        Args:
            cell: the cell.
            objectives: (J,) at every decode setting, the default first.
            share: its fraction of a full run.
        """
        arm = self.arms[cell.arm]
        arm.pending.discard(cell.index)
        arm.cells[cell.index] = np.asarray(objectives, float)
        self._spent += share
        self._ended(cell)

    def drop(self, cell: Cell, share: float) -> None:
        """Take a cell that failed or was stopped early; its arm leaves the race, except the
        defaults."""
        arm = self.arms[cell.arm]
        arm.pending.discard(cell.index)
        arm.stopped = True
        self._spent += share
        self._ended(cell)

    def _ended(self, cell: Cell) -> None:
        """Update the evidence when due: at first after every outcome, later after several. This
        depends only on the number of outcomes, so an interrupted race continues as if it had not
        stopped."""
        if cell.stage == GATE:
            return
        self._outcomes += 1
        if self._outcomes >= self._due:
            self._due = self._outcomes + max(1, self._outcomes // EVERY_OUTCOME)
            self._evidence, self._belief = self._known(), None

    def _settle(self) -> None:
        """Update the evidence with all outcomes; no more will follow."""
        if self._evidence is not None and self._evidence.outcomes < self._outcomes:
            self._evidence, self._belief = self._known(), None

    def belief(self) -> tuple[list[int], Belief] | None:
        """The arms in the race (at most the best ones) and their posterior at their decode
        settings, from the cells before the gate; None before the first outcome."""
        if self._belief is None and self._evidence is not None:
            self._belief = self._evidence.arms, self._evidence.believed(self.num_folds)
        return self._belief

    def believed(self) -> Floats:
        """(A,) posterior mean of each arm; NaN if unknown."""
        mean = np.full(len(self.arms), np.nan)
        if found := self.belief():
            mean[found[0]] = found[1].mean
        return mean

    def verdict(self) -> Verdict:
        """The recommendation from all outcomes."""
        self._settle()
        finalist = self._finalist()
        tuned = self._setting(0)
        own = self._setting(finalist) if finalist else 0
        candidates = [(finalist, own), (0, tuned)]
        candidates = list(dict.fromkeys(c for c in candidates if c != (0, 0)))
        tests = [self._met(a, j) if a else self._decoding_alone() for a, j in candidates]
        passed = [k for k, good in enumerate(accepted([t.p for t in tests])) if good]
        if passed:
            best = max(passed, key=lambda k: (tests[k].mean, -k))
            arm, setting = candidates[best]
            kind, difference = "better", tests[best]
        elif tests:
            difference = next((test for test in tests if test.cells), tests[0])
            arm, setting, kind = 0, 0, "tie"
        else:
            arm, setting = 0, 0
            kind, difference = (
                ("defaults", NO_DIFFERENCE) if self._tried else ("tie", compare([], 0))
            )
        return Verdict(
            arm=arm, setting=setting, verdict=kind, difference=difference,
            finalist=finalist, finalist_setting=own,
        )  # fmt: skip

    @property
    def _tried(self) -> bool:
        """Whether another configuration has scores, or there is no other one."""
        others = any(len(arm.scores()) for arm in self.arms[1:])
        return others or (self._exhausted and len(self.arms) == 1)

    def _met(self, arm: int, setting: int) -> Difference:
        """Difference of an arm at a decode setting to the defaults, on the cells of the gate."""
        plain, own = self.arms[0].cells, self.arms[arm].cells
        pairs = [own[k][setting] - plain[k][0] for k in self._gate_pairs(arm)]
        return compare(pairs, 2 * self.noise())

    def _decoding_alone(self) -> Difference:
        """The difference of tuned to default decoding, on all cells of the defaults.

        Both decode the same training runs. Each cell is scored at the setting chosen on the other
        cells, so that the same cells can choose and evaluate the setting.
        """
        known = [arm.scores(EVERY) for arm in self.arms if len(arm.scores(EVERY))]
        gains = out_of_cell(known, 0) - known[0][:, 0]
        setting = self._setting(0)
        every = np.concatenate([own[:, setting] - own[:, 0] for own in known])
        return compare(gains.tolist(), float(every.var(ddof=1)), fresh=False)

    def noise(self) -> float:
        """Variance of one cell."""
        found = self.belief()
        return found[1].noise if found else 0.0

    def _known(self) -> Evidence | None:
        """The evidence so far: the arms with the best mean scores, and always the defaults."""
        scores = {k: arm.scores() for k, arm in enumerate(self.arms) if self._runs(k)}
        scores = {k: own for k, own in scores.items() if len(own)}
        best = sorted(scores, key=lambda k: (k > 0, -float(scores[k].mean(axis=0).max()), k))
        known = sorted(best[:MOST_BELIEVED])
        if not known:
            return None
        cells = [[i for i in sorted(a.cells) if a.stages[i] != GATE]
                 for a in (self.arms[k] for k in known)]  # fmt: skip
        places = np.stack([self.arms[k].coordinates for k in known])
        return Evidence(
            arms=known, scores=[scores[k] for k in known], cells=cells, places=places,
            outcomes=self._outcomes,
        )  # fmt: skip

    def _runs(self, arm: int) -> bool:
        return arm == 0 or not self.arms[arm].stopped

    def _setting(self, arm: int) -> int:
        """The decode setting of an arm, from the cells before the gate."""
        known = [k for k in range(len(self.arms)) if len(self.arms[k].scores())]
        if arm not in known:
            return 0
        return choose([self.arms[k].scores() for k in known], known.index(arm))

    def _finalist(self) -> int:
        """The arm for the gate: the one with the best posterior mean if better than the defaults,
        else 0."""
        met = [
            k for k, arm in enumerate(self.arms) if k and GATE in arm.stages.values()
        ]  # of an interrupted run
        if met:
            return met[0]
        found = self.belief()
        if not found or 0 not in found[0]:
            return 0
        known, belief = found
        return known[int(belief.mean.argmax())] if belief.mean.max() > self._plain(found) else 0

    def _plain(self, found: tuple[list[int], Belief]) -> float:
        """The posterior mean of the defaults, less what their tuned decoding gains."""
        assert self._evidence is not None  # of which `found` is
        return float(found[1].mean[found[0].index(0)]) - self._evidence.gain(0)

    def _screened(self) -> Cell | None:
        """The first cell of a new arm, while there is budget for screening."""
        if self._exhausted or (
            self.arms and self.progress + 1 / self.budget > self._screened_share
        ):
            return None
        if any(GATE in a.stages.values() or RACE in a.stages.values() for a in self.arms):
            return None
        coordinates = self._propose(len(self.arms), self.believed())
        if coordinates is None:
            self._exhausted = True
            return None
        return Cell(arm=self.add(coordinates), index=0, stage=SCREEN)

    @property
    def _screened_share(self) -> float:
        """Fraction of the budget at which screening ends; later if an arm leads the defaults by
        far.

        In that case the gate hardly needs racing, and better arms are worth more than certainty.
        """
        found = self.belief()
        if self.time_share > SCREENED or not found or 0 not in found[0]:
            return SCREENED
        if found[1].mean.max() - self._plain(found) <= FAR * np.sqrt(2 * found[1].noise):
            return SCREENED
        return max(SCREENED, 1 - (2 * self.gate_cells + LEAST_RACED) / self.budget)

    def _raced(self) -> Cell | None:
        """Another cell of an arm that may be the best, or of the defaults if they lack it and the
        arm is not surely better.

        Source: Thompson sampling; an arm is drawn with the probability that it is the best.
        """
        if self._gate_begun or self._screening or not self._choices:
            return None
        if (self._spent + self._under_way + 2 * self.gate_cells + 1) > self.budget + 1e-9:
            return None
        if self.time_share > self._raced_share or (found := self.belief()) is None:
            return None
        known, belief = found
        rng = np.random.default_rng([self.seed, self._begun])
        for _ in range(8):
            row = int(belief.draw(rng).argmax())
            sure = 0 in known and belief.lead(row, known.index(0)) > SURE
            if cell := self._one_more(known[row], alone=sure):
                return cell
        return None

    @property
    def _raced_share(self) -> float:
        """Fraction of the time at which racing ends: the smallest gate has time for its runs."""
        run = self.time_share / max(self._spent, 1.0)
        return min(RACED, 1 - 2 * FEWEST_GATE_CELLS * run)

    def _one_more(self, arm: int, alone: bool) -> Cell | None:
        if not self._runs(arm):
            return None  # stopped after the evidence for this draw
        most = self._most_cells - self.gate_cells
        index = self._free_index(arm)
        if arm and not alone and self._free_index(0) <= index:
            arm, index = 0, self._free_index(0)
        return Cell(arm=arm, index=index, stage=RACE) if index < most else None

    def _gated(self) -> Cell | None:
        """A cell of the gate, in which finalist and defaults have the same new cells."""
        if self._screening or not self._choices or (self.waiting and not self._gate_begun):
            return None
        if self.time_share >= 1:
            return None
        self._settle()
        sides = [0] if (finalist := self._finalist()) == 0 else [finalist, 0]
        if sides == [0] and self._setting(0) == 0:
            return None
        first = self._gate_first(sides)
        for k in range(first, first + self.gate_cells):
            for arm in sides:
                if k not in self.arms[arm].stages and k < self._most_cells:
                    return Cell(arm=arm, index=k, stage=GATE)
        return None

    def _gate_first(self, sides: Sequence[int]) -> int:
        """The first cell that neither side had before the gate."""
        before = [k for a in sides for k, stage in self.arms[a].stages.items() if stage != GATE]
        return max(before, default=-1) + 1

    def _gate_pairs(self, arm: int) -> list[int]:
        """The cells of the gate that both an arm and the defaults have finished."""
        own, plain = self.arms[arm].cells, self.arms[0]
        return sorted(k for k in own if k in plain.cells and plain.stages[k] == GATE)

    def _free_index(self, arm: int) -> int:
        return max(self.arms[arm].stages, default=-1) + 1

    @property
    def _choices(self) -> bool:
        """Whether there is more than one configuration or decode setting."""
        return len(self.arms) > 1 or (self._exhausted and self.arms[0].scores().shape[1] > 1)

    @property
    def _screening(self) -> bool:
        return any(0 in arm.pending for arm in self.arms)

    @property
    def _gate_begun(self) -> bool:
        return any(GATE in arm.stages.values() for arm in self.arms)

    @property
    def _under_way(self) -> int:
        return sum(len(arm.pending) for arm in self.arms)
