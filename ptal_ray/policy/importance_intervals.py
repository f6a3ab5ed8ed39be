"""Intervals of the importance of hyperparameters: fANOVA on trees with different trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.importance import FanovaImportanceEvaluator

from ptal_ray.policy.importance import LEAST_SPREAD, MIN_TRIALS, explained
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
    rng = np.random.default_rng(0)
    trees = []
    for seed in range(TREES):
        rows = rng.integers(0, len(points), len(points))[:MOST_TRIALS]
        own, their = [points[row] for row in rows], [values[row] for row in rows]
        tree = FanovaImportanceEvaluator(n_trees=1, seed=seed)
        if found := explained(domains, own, their, tree):
            trees.append(found)
    if not trees:
        return {}
    table = np.array([[tree.get(name, 0.0) for name in domains] for tree in trees])
    low, high = np.percentile(table, [10, 90], axis=0)
    order = np.argsort(-table.mean(axis=0), kind="stable")
    names = list(domains)
    return {names[k]: (float(table[:, k].mean()), float(low[k]), float(high[k])) for k in order}
