"""Search policies for replays on recorded searches. None of them can read a test value.

Each is a function of a `Search` that returns its recommendations by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptal_ray.benchmarks.table import Floats, Table
from ptal_ray.policy.belief import believe
from ptal_ray.policy.cells import SCREEN, Cell, Verdict
from ptal_ray.policy.early_stop import EarlyStop
from ptal_ray.policy.halving import Halving
from ptal_ray.policy.race import Race
from ptal_ray.study.warm_start import FIRST

SCREENING = 0.5  # fraction of the budget, for the policy `one_cell`
KEPT = 0.25  # fraction of the screened configurations
EARLIER_BUDGET = 12.0  # full runs of the earlier search of `race+warm`, before its gate


@dataclass(frozen=True, kw_only=True)
class Search:
    """The part of a table for a policy: configurations and cells in the order of this search.

    Args:
        objective: (A, K, R, J) of A configurations in K cells at R report steps and J decode
            settings; configuration 0 is the defaults, setting 0 the default one.
        cross_fitted: (A, K, R) with decode settings chosen on the other half of the fold.
        coordinates: (A, D) coordinates of the configurations.
        steps: (R,) optimiser steps of the reports.
        folds: cell k is scored on fold k modulo this.
        budget: full runs.
        seed: for the choices of the policy.
        eta, top, seeds: `budget.eta`, `final.top` and `final.seeds` of the space.
        early_stop: whether a race stops trainings early.
    """

    objective: Floats
    cross_fitted: Floats
    coordinates: Floats
    steps: Floats
    folds: int
    budget: float
    seed: int
    eta: int
    top: int
    seeds: int
    early_stop: bool = True

    @property
    def share(self) -> Floats:
        """(R,) fraction of a full run at each report step."""
        found: Floats = self.steps / self.steps[-1]
        return found


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A configuration of the search, its decode setting, and its claimed objective."""

    arm: int
    setting: int
    believed: float


Policy = Callable[[Search], Mapping[str, Recommendation]]


def drawn(table: Table, budget: float, seed: int) -> tuple[Search, NDArray[np.int64]]:
    """A search of a table: an order of its configurations, folds and seeds.

    Args:
        table: the recorded search.
        budget: full runs.
        seed: number of the search.

    Returns:
        The search, and the row of the table of each of its configurations.
    """
    rng = np.random.default_rng([seed, 0x5EA7C4])
    configurations, folds, seeds = table.objective.shape[:3]
    arms = np.concatenate([[0], 1 + rng.permutation(configurations - 1)])
    fold = np.tile(rng.permutation(folds), seeds)
    own = np.stack([rng.permutation(seeds) for _ in range(folds)])  # each fold has its own order
    cell = (slice(None), fold, own[fold, np.repeat(np.arange(seeds), folds)])
    search = Search(
        objective=table.objective[arms][cell], cross_fitted=table.cross_fitted[arms][cell],
        coordinates=table.coordinates[arms], steps=table.steps,
        folds=folds, budget=budget, seed=seed, eta=table.eta, top=table.top, seeds=table.seeds,
    )  # fmt: skip
    return search, arms


def random(search: Search) -> dict[str, Recommendation]:
    """The best of the defaults and random configurations, each a full run on the same cell."""
    number = _affordable(search, search.budget)
    best = int(search.cross_fitted[:number, 0, -1].argmax())
    believed = float(search.cross_fitted[best, 0, -1])
    return {"random": _with_own_setting(search, best, believed)}


def one_cell(search: Search) -> dict[str, Recommendation]:
    """Screening on one cell, then the best quarter on more cells, by the mean.

    The decode setting is the best one over the cells of a configuration. Means are not shrunk, and
    the defaults have no advantage.
    """
    screened = _affordable(search, SCREENING * search.budget)
    first = search.objective[:screened, 0, -1].max(axis=1)
    kept = np.argsort(-first, kind="stable")[: max(1, round(KEPT * screened))]
    cells = 1 + int((search.budget - screened) // len(kept))
    means = search.objective[kept, :cells, -1].mean(axis=1)  # (kept, J)
    row, setting = np.unravel_index(int(means.argmax()), means.shape)
    believed = float(means[row, setting])
    return {"one_cell": Recommendation(arm=int(kept[row]), setting=int(setting), believed=believed)}


def simple(search: Search) -> dict[str, Recommendation]:
    """The policy of one fold, see `policy/simple.py`, with configurations drawn at random.

    Successive halving on one cell, which does not stop the defaults; then the `top` best again with
    other seeds on its fold, and the best mean of these. The decode setting is that of the first
    run. The number of other seeds is limited by the space, the table, and half of the budget.
    """
    others = list(range(search.folds, search.objective.shape[1], search.folds))
    again = others[: min(search.seeds, int(search.budget / 2 / search.top))]
    complete = _halved(search, search.budget - search.top * len(again))
    complete.sort(key=lambda arm: -search.cross_fitted[arm, 0, -1])
    if not again or len(complete) < 2:
        believed = float(search.cross_fitted[complete[0], 0, -1])
        return {"simple": _with_own_setting(search, complete[0], believed)}
    top = complete[: search.top]
    means = search.cross_fitted[top][:, again, -1].mean(axis=1)
    best = int(means.argmax())
    return {"simple": _with_own_setting(search, top[best], float(means[best]))}


def _halved(search: Search, budget: float) -> list[int]:
    """The configurations that reach the last step within `budget` full runs, with the defaults."""
    halving, complete, last = Halving(search.eta), [], len(search.steps) - 1
    for arm in range(len(search.objective)):
        if arm and budget < search.share[0]:
            break
        for row, step in enumerate(search.steps.astype(int)):
            stopped = halving.take(arm, int(step), float(search.cross_fitted[arm, 0, row]))
            if row == last:
                complete.append(arm)
            elif stopped and arm:
                break
        budget -= float(search.share[row])
    return complete


def race(search: Search) -> dict[str, Recommendation]:
    """The race of `policy/race.py`, and its finalist without the gate."""
    done = raced(search)
    verdict: Verdict = done.verdict()
    plain = float(done.arms[0].scores()[:, 0].mean())
    shipped = verdict.verdict == "better"
    ungated = Recommendation(arm=0, setting=0, believed=plain)
    if verdict.finalist and (found := done.belief()) is not None:
        mean = float(found[1].mean[found[0].index(verdict.finalist)])
        ungated = Recommendation(
            arm=verdict.finalist, setting=verdict.finalist_setting, believed=mean
        )
    return {
        "race": Recommendation(
            arm=verdict.arm, setting=verdict.setting,
            believed=plain + (verdict.difference.mean if shipped else 0.0),
        ),
        "race_without_gate": ungated,
    }  # fmt: skip


def warm(search: Search) -> dict[str, Recommendation]:
    """The race with an earlier search of the same table as evidence. The earlier search has the
    other half of the configurations and the second half of the cells, in reverse order, and does
    not count in the budget.

    Its best configurations come first; then the rest of this half, in the order of scores drawn
    from the posterior of the earlier search, which stands for the searcher.
    """
    arms = len(search.objective)
    before, own = np.arange(1, arms, 2), np.arange(2, arms, 2)
    earlier = _of(search, np.concatenate([[0], before]), EARLIER_BUDGET)
    last = slice(None, search.objective.shape[1] // 2 - 1, -1)  # no cell is used for two decisions
    earlier = replace(
        earlier, objective=earlier.objective[:, last], cross_fitted=earlier.cross_fitted[:, last]
    )
    found = raced(earlier).belief()
    assert found is not None, "the defaults are scored before all others"
    known = np.concatenate([[0], before])[found[0]]
    places = search.coordinates[np.concatenate([known, own])]
    row = range(len(known))
    belief = believe(found[1].mean.tolist(), row, [0] * len(row), [0] * len(row), places)
    drawn_scores = belief.draw(np.random.default_rng([search.seed, 0x3A23]))[len(known) :]
    best = [int(k) for k in known[np.argsort(-found[1].mean, kind="stable")] if k][:FIRST]
    order = np.array([0, *best, *own[np.argsort(-drawn_scores, kind="stable")]])
    one = race(_of(search, order))["race"]
    return {"race+warm": replace(one, arm=int(order[one.arm]))}


def _of(search: Search, arms: NDArray[np.int64], budget: float | None = None) -> Search:
    """A search of some of its configurations, in their order."""
    return replace(
        search, objective=search.objective[arms], cross_fitted=search.cross_fitted[arms],
        coordinates=search.coordinates[arms],
        budget=search.budget if budget is None else budget,
    )  # fmt: skip


def race_without_early_stop(search: Search) -> dict[str, Recommendation]:
    """The race in which every training reaches its end."""
    return {"race_without_early_stop": race(replace(search, early_stop=False))["race"]}


def race_without_decoding(search: Search) -> dict[str, Recommendation]:
    """The race in which every configuration decodes with the default setting."""
    default = replace(
        search, objective=search.objective[..., :1], cross_fitted=search.objective[..., 0]
    )
    return {"race_without_decoding": race(default)["race"]}


def raced(search: Search) -> Race:
    """A whole race on the cells of a search.

    Configurations come in the random order of the search.
    """
    arms, cells = search.objective.shape[:2]
    plan = Race(
        budget=search.budget, num_folds=search.folds, seed=search.seed, most_cells=cells,
        propose=lambda number, believed: search.coordinates[number] if number < arms else None,
    )  # fmt: skip
    early, number = EarlyStop(search.steps.astype(int).tolist(), search.eta), 0
    while (cell := plan.next()) is not None:
        row = _stopped(search, early, cell, number) if search.early_stop else None
        if row is None:
            plan.tell(cell, search.objective[cell.arm, cell.index, -1])
        else:
            plan.drop(cell, float(search.share[row]))
        number += 1
    return plan


def _stopped(search: Search, early: EarlyStop, cell: Cell, number: int) -> int | None:
    """The report at which training `number` stops early; None if it reaches its end."""
    if cell.stage != SCREEN:
        return None
    for row, step in enumerate(search.steps.astype(int)):
        value = float(search.cross_fitted[cell.arm, cell.index, row])
        if early.take(number, int(step), value, defaults=cell.arm == 0):
            return row
    return None


def _affordable(search: Search, budget: float) -> int:
    """Number of configurations with a full run each, including the defaults."""
    return max(1, min(len(search.objective), int(budget)))


def _with_own_setting(search: Search, arm: int, believed: float) -> Recommendation:
    """A recommendation with the decode setting that was best in the first cell."""
    setting = int(search.objective[arm, 0, -1].argmax())
    return Recommendation(arm=arm, setting=setting, believed=believed)


POLICIES: dict[str, Policy] = {
    "race": race, "race+warm": warm, "simple": simple, "random": random, "one_cell": one_cell,
    "race_without_early_stop": race_without_early_stop,
    "race_without_decoding": race_without_decoding,
}  # fmt: skip
ROWS = {"race_without_gate": "race"}  # rows of a replay that another policy gives
