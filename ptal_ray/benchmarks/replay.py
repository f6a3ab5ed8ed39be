"""Replays: runs policies many times on recorded searches and scores their recommendations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.benchmarks.policies import POLICIES, drawn
from ptal_ray.benchmarks.scorer import sealed_values
from ptal_ray.benchmarks.table import Floats, Table, read_table
from ptal_ray.errors import ConfigError
from ptal_ray.process.pool import process_pool
from ptal_ray.process.words import counted

RANDOM_RUNS = 64  # `cost_ratio` is the cost to reach the gain of the best of them
BUDGETS = (5.0, 8.0, 12.0, 16.0, 21.0, 32.0)  # full runs; the cost curve is linear between them
CURVE_SEARCHES = 60  # maximal number for each of these budgets
BOOTSTRAP = 1000  # resamplings of the searches
LEVEL = 0.95  # of the intervals
PART = 20  # searches of one task of a pool

Played = dict[str, list[tuple[int, int, float]]]  # policy -> row of the table, setting, claim


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The scored recommendations of a policy in N searches; fractions of mAP.

    Args:
        gain: (N,) test mAP minus that of the defaults with the default decode setting.
        test: (N,) test mAP.
        optimism: (N,) claimed objective minus the mean objective of the defaults in all cells of
            the table, minus `gain`.
        opened: (N,) 1 if another configuration or decode setting than the defaults is recommended.
    """

    gain: Floats
    test: Floats
    optimism: Floats
    opened: Floats


def replay(
    folders: Sequence[Path],
    policies: Sequence[str],
    *,
    searches: int,
    budget: float,
    workers: int,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run policies on tables, and on tables in which every configuration is the defaults (A/A).

    Args:
        folders: of the tables.
        policies: names in `POLICIES`.
        searches: of each policy on each table.
        budget: of a search, in full runs.
        workers: processes.
        progress: called with a line about the progress.

    Returns:
        {"tables": {TABLE: {POLICY: see `figures`}}, "aa": {TABLE: {POLICY: {"opened", ...}}}}, and
        "searches" and "budget".

    Raises:
        ConfigError: two folders have the same name.
        DataError: a table is missing, unfinished, damaged or of another version.
    """
    found = [(read_table(folder), folder) for folder in folders]
    names = [table.name for table, _ in found]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{repeated[0]}: two tables have this name; rename one of the folders")
    tables: dict[str, Any] = {}
    aa: dict[str, Any] = {}
    with process_pool(workers) if workers > 1 else nullcontext() as pool:
        for table, folder in found:
            number = counted(searches, "search", "searches")
            progress(f"{table.name}: {number} of {', '.join(policies)}")
            run = partial(_all_played, pool, table, policies)
            test = sealed_values(folder, table)
            every = _scored(table, test, run(budget, searches))
            few = min(searches, CURVE_SEARCHES)
            curve = [_scored(table, test, run(b, few)) for b in BUDGETS]
            target = _best_of_random(table, test, searches)
            tables[table.name] = {
                name: figures(outcome, np.stack([c[name].gain for c in curve]), target)
                for name, outcome in every.items()
            }
            null = run(budget, searches, null=True)
            aa[table.name] = {
                name: _with_intervals({"opened": _mean}, _opened(played))
                for name, played in null.items()
            }
    return {"searches": searches, "budget": budget, "tables": tables, "aa": aa}


def figures(outcome: Outcome, curve: Floats, target: float) -> dict[str, Any]:
    """The measures of a policy, each with an interval from resampled searches.

    Args:
        outcome: of its searches.
        curve: (B, N) test gains of searches with each of `BUDGETS`.
        target: mean test gain of the best of `RANDOM_RUNS` random full runs.

    Returns:
        p_worse: fraction of searches whose recommendation is worse than the defaults on test; gain:
            mean of `Outcome.gain`; worst_decile: its mean over the worst tenth of the searches;
            optimism: mean; spread: standard deviation of test mAP; cost_ratio: the smallest budget
            at which the mean gain reaches `target`, as a fraction of `RANDOM_RUNS`, None if it does
            not; "intervals": low and high of each.
    """
    found = _with_intervals(
        {"p_worse": _worse, "gain": _mean, "worst_decile": _worst_decile}, outcome.gain
    )
    for name, statistic, values in (
        ("optimism", _mean, outcome.optimism), ("spread", _spread, outcome.test),
    ):  # fmt: skip
        part = _with_intervals({name: statistic}, values)
        found = found | part | {"intervals": found["intervals"] | part["intervals"]}
    means = _resampled(curve).mean(axis=-1)  # (B, BOOTSTRAP)
    ratios = np.array([_cost_ratio(column, target) for column in means.T])
    low, high = np.quantile(ratios, _ends(), method="nearest")
    found["cost_ratio"] = _finite(_cost_ratio(curve.mean(axis=1), target))
    found["intervals"]["cost_ratio"] = [_finite(low), _finite(high)]
    return found


def all_defaults(table: Table, seed: int) -> Table:
    """A table in which every configuration and decode setting is as good as the defaults.

    A cell is the mean of the defaults on its fold plus the deviation of one of their cells, at all
    steps and settings, from the mean of its fold. Deviations are scaled, because the mean includes
    the cell itself. In a table of one seed, the mean of all folds takes the place of that of the
    fold, so differences between folds count as noise.

    Args:
        table: the recorded search.
        seed: for the assignment of deviations to cells.
    """
    rng = np.random.default_rng([seed, 0xAA])
    configurations, folds, seeds = table.objective.shape[:3]
    chosen = rng.integers(0, folds * seeds, (configurations, folds, seeds))
    axis, repeats = (1, seeds) if seeds > 1 else (0, folds)
    level = table.objective[0, :, :, :, 0].mean(axis=axis, keepdims=True)  # (F or 1, 1, R)
    made = {}
    for name in ("objective", "cross_fitted"):
        own = getattr(table, name)[0]
        apart = (own - own.mean(axis=axis, keepdims=True)) * np.sqrt(repeats / (repeats - 1))
        apart = apart.reshape(folds * seeds, *own.shape[2:])[chosen]
        made[name] = apart + level.reshape(*level.shape, *[1] * (own.ndim - 3))
    return replace(table, **made)


def _all_played(
    pool: Executor | None,
    table: Table,
    policies: Sequence[str],
    budget: float,
    searches: int,
    null: bool = False,
) -> Played:
    """All searches, in parts, on a pool."""
    parts = [range(k, min(k + PART, searches)) for k in range(0, searches, PART)]
    one = partial(_played, table, policies, budget, null)
    done: Iterable[Played] = pool.map(one, parts) if pool else map(one, parts)
    found: Played = {}
    for part in done:
        for name, rows in part.items():
            found.setdefault(name, []).extend(rows)
    return found


def _played(
    table: Table, policies: Sequence[str], budget: float, null: bool, seeds: Iterable[int]
) -> Played:
    """The recommendations of policies: row of the table, setting, claim."""
    found: Played = {}
    for seed in seeds:
        search, rows = drawn(all_defaults(table, seed) if null else table, budget, seed)
        for policy in policies:
            for name, best in POLICIES[policy](search).items():
                row = (int(rows[best.arm]), best.setting, best.believed)
                found.setdefault(name, []).append(row)
    return found


def _scored(table: Table, test: Floats, played: Played) -> dict[str, Outcome]:
    level = float(table.objective[0, :, :, -1, 0].mean())
    outcomes = {}
    for name, rows in played.items():
        found = np.array([test[row, setting] for row, setting, _ in rows])
        gain = found - test[0, 0]
        claimed = np.array([believed for _, _, believed in rows]) - level
        outcomes[name] = Outcome(
            gain=gain, test=found, optimism=claimed - gain, opened=_opened(rows)
        )
    return outcomes


def _opened(rows: Sequence[tuple[int, int, float]]) -> Floats:
    return np.array([float((row, setting) != (0, 0)) for row, setting, _ in rows])


def _best_of_random(table: Table, test: Floats, searches: int) -> float:
    """Mean test gain of the best of `RANDOM_RUNS` full runs of random configurations on one cell.

    They are drawn with replacement, because a table may have fewer.
    """
    gains = []
    configurations, folds, seeds = table.objective.shape[:3]
    for search in range(searches):
        rng = np.random.default_rng([search, 0xBE57])
        rows = rng.integers(1, configurations, RANDOM_RUNS)
        fold, seed = rng.integers(folds), rng.integers(seeds)
        best = rows[table.cross_fitted[rows, fold, seed, -1].argmax()]
        setting = table.objective[best, fold, seed, -1].argmax()
        gains.append(test[best, setting] - test[0, 0])
    return float(np.mean(gains))


def _cost_ratio(curve: Floats, target: float) -> float:
    """The budget at which a curve of mean gains at `BUDGETS` first reaches `target`, or infinity.

    Below the first budget nothing is known: a policy that reaches the target there gets this
    budget.
    """
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return float("inf")
    at = int(reached[0])
    cost = BUDGETS[at]
    if at:
        below = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
        cost = BUDGETS[at - 1] + below * (BUDGETS[at] - BUDGETS[at - 1])
    return float(cost / RANDOM_RUNS)


def _with_intervals(
    statistics: Mapping[str, Callable[[Floats], Floats]], values: Floats
) -> dict[str, Any]:
    """Statistics over the last axis of `values`, and their intervals."""
    again = _resampled(values)
    found: dict[str, Any] = {name: float(of(values)) for name, of in statistics.items()}
    ends = {name: np.quantile(of(again), _ends()).tolist() for name, of in statistics.items()}
    return found | {"intervals": ends}


def _resampled(values: Floats) -> Floats:
    """(..., N) -> (..., BOOTSTRAP, N), with the same searches for a whole group."""
    number = values.shape[-1]
    chosen = np.random.default_rng(0).integers(0, number, (BOOTSTRAP, number))
    return values[..., chosen]


def _ends() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


def _worse(gain: Floats) -> Floats:
    return np.asarray((gain < 0).mean(axis=-1))


def _worst_decile(gain: Floats) -> Floats:
    number = max(1, round(gain.shape[-1] / 10))
    return np.asarray(np.sort(gain, axis=-1)[..., :number].mean(axis=-1))


def _spread(test: Floats) -> Floats:
    return np.asarray(test.std(axis=-1))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
