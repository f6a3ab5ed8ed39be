"""The Optuna sampler of each searcher."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from ptal_ray.errors import ConfigError
from ptal_ray.study.choices import SEARCHERS


def sampler(
    name: str, seed: Sequence[int], past: Sequence[FrozenTrial] | None = None
) -> BaseSampler:
    """The sampler of one suggestion.

    Args:
        name: of a searcher.
        seed: any numbers; equal ones give equal suggestions.
        past: for a race, all trials to learn from, with the posterior means of their arms as
            values; then a sampler learns from the first trial on. None for the simple policy.

    Raises:
        ConfigError: no such searcher, or none that this function knows.
    """
    draw = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    race = past is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name in ("random", "grid"):  # of a grid, what the grid leaves open
            return RandomSampler(seed=draw)
        if name == "tpe":
            if race:
                return TPESampler(seed=draw, multivariate=True, n_startup_trials=0)
            return TPESampler(seed=draw, multivariate=True, group=True, constant_liar=True)
        if name == "gp":
            return GPSampler(seed=draw, n_startup_trials=0) if race else GPSampler(seed=draw)
        if name == "cmaes":
            source = [_numbers(trial) for trial in past or ()] or None
            return CmaEsSampler(seed=draw, source_trials=source, warn_independent_sampling=False)
    raise ConfigError(
        f"--searcher {name}: has no sampler; allowed are {', '.join(SEARCHERS)}; a new one is "
        "added in ptal_ray/policy/samplers.py"
    )


def _numbers(trial: FrozenTrial) -> FrozenTrial:
    """The trial with the parameters that CMA-ES searches; it ignores trials that have others."""
    kinds: dict[str, BaseDistribution] = {
        name: kind
        for name, kind in trial.distributions.items()
        if isinstance(kind, FloatDistribution | IntDistribution) and not kind.single()
    }
    params = {name: trial.params[name] for name in kinds}
    return create_trial(params=params, distributions=kinds, value=trial.value)
