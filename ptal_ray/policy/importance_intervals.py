"""Intervals of the importance of hyperparameters: fANOVA on trees with different trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from ptal_ray.policy.importance import LEAST_SPREAD, MIN_TRIALS
from ptal_ray.policy.optuna_searcher import distribution
from ptal_ray.space.domain import Domain, Scalar

TREES, MOST_TRIALS = 24, 300
Shares = dict[str, tuple[float, float, float]]


def importance_intervals(
    domains: Mapping[str, Domain], points: Sequence[Mapping[str, Scalar]], values: Sequence[float]
) -> Shares:
    """Fraction of the variance that each parameter explains, with the spread over trees.

    Args:
        domains: of the parameters.
        points: parameters of each trial, inside the domains.
        values: objective of each trial.

    Returns:
        Mean, 10th and 90th percentile over `TREES` trees, largest first; empty with fewer than
        `MIN_TRIALS` trials, or if they hardly differ.

    Source: fANOVA (Hutter et al., 2014), as Optuna implements it.
    """
    if len(points) < MIN_TRIALS or max(values) - min(values) <= LEAST_SPREAD:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(0)
    trees = [
        shares
        for seed in range(TREES)
        if (
            shares := _tree(
                domains, points, values, rng.integers(0, len(points), len(points)), seed
            )
        )
    ]
    if not trees:
        return {}
    table = np.array([[tree[name] for name in domains] for tree in trees])
    low, high = np.percentile(table, [10, 90], axis=0)
    order = np.argsort(-table.mean(axis=0), kind="stable")
    names = list(domains)
    return {names[k]: (float(table[:, k].mean()), float(low[k]), float(high[k])) for k in order}


def _tree(
    domains: Mapping[str, Domain],
    points: Sequence[Mapping[str, Scalar]],
    values: Sequence[float],
    rows: np.typing.NDArray[np.int64],
    seed: int,
) -> dict[str, float]:
    """Fractions from one tree on the trials of `rows`; empty if there is nothing to explain."""
    distributions = {name: distribution(domain) for name, domain in domains.items()}
    study = optuna.create_study(direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.add_trials([
            create_trial(state=TrialState.COMPLETE, value=values[row], params=dict(points[row]),
                         distributions=distributions)
            for row in rows[:MOST_TRIALS]
        ])  # fmt: skip
        try:
            found = FanovaImportanceEvaluator(n_trees=1, seed=seed).evaluate(study)
        except RuntimeError:  # the tree has no split
            return {}
    total = sum(found.values())
    return {name: found.get(name, 0.0) / total for name in domains} if total > 0 else {}
