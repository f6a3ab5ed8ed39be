"""New configurations for a race, learnt from what it believes of those before."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ptal_ray.policy.optuna_searcher import complete, distribution, grid
from ptal_ray.space.domain import Scalar
from ptal_ray.space.untried import number_of_points, point, untried
from ptal_ray.study.study import Study

Floats = NDArray[np.float64]
FIRST_RANDOM = 10  # arms before a searcher learns, the least that CMA-ES starts from
MOST_CHANGED = 4  # parameters in which a configuration near the defaults differs from them
MOST_NEAR = 0.5  # share of the configurations near the defaults, where those are the best known


class Suggester:
    """Suggests arm after arm: the defaults, random ones, then what the searcher makes of the
    beliefs; among them configurations that change up to four of the default values, the more the
    better the defaults are.

    A suggestion depends on the seed, the number of the arm and the beliefs alone. No configuration
    is suggested twice where they can be counted.

    Source: the prior around the defaults is that of PriorBand, Mallik et al. 2023, in a simpler
    form.
    """

    def __init__(self, study: Study) -> None:
        space = study.space
        self._study, self._domains = study, space.train
        self._distributions = {k: distribution(d) for k, d in space.train.items()}
        defaults = space.train_defaults()
        self.defaults = {name: defaults[name] for name in space.train}
        self._grid = grid(study) if study.searcher == "grid" else None

    def suggest(
        self, arm: int, known: Sequence[dict[str, Scalar]], believed: Floats
    ) -> dict[str, Scalar] | None:
        """The configuration of arm `arm`.

        Args:
            arm: its number; 0 for the defaults.
            known: configurations of the arms before it.
            believed: (arm,) their believed scores, NaN where nothing is known.

        Returns:
            The searched parameters, or None where all configurations are taken.
        """
        if arm == 0:
            return dict(self.defaults)
        taken = {point(self._domains, params) for params in known}
        if self._grid is not None:
            return next((p for p in self._grid if point(self._domains, p) not in taken), None)
        rng = np.random.default_rng([self._study.seed, arm, 2])
        if rng.random() < MOST_NEAR * self._below_defaults(believed):
            wanted = self._near_defaults(rng)
        else:
            wanted = self._drawn(arm, known, believed)
        if number_of_points(self._domains) is None:
            return wanted
        return untried(self._domains, wanted, taken, rng)

    def _below_defaults(self, believed: Floats) -> float:
        """Share of the other arms that are believed worse than the defaults; 1/2 at the start."""
        others = believed[1:][np.isfinite(believed[1:])]
        if not len(others) or not np.isfinite(believed[0]):
            return 0.5
        return float((1 + (others < believed[0]).sum()) / (2 + len(others)))

    def _near_defaults(self, rng: np.random.Generator) -> dict[str, Scalar]:
        names = list(self._domains)
        most = min(MOST_CHANGED, len(names))
        changed = rng.permutation(len(names))[: int(rng.integers(1, most + 1))]
        drawn = {names[k]: self._domains[names[k]].sample(float(rng.random())) for k in changed}
        return self.defaults | drawn

    def _drawn(
        self, arm: int, known: Sequence[dict[str, Scalar]], believed: Floats
    ) -> dict[str, Scalar]:
        finite = believed[np.isfinite(believed)]
        lie = float(finite.min()) if len(finite) else 0.0  # of arms under way: no two alike
        past = [
            self._past(params, lie if np.isnan(value) else float(value))
            for params, value in zip(known, believed, strict=True)
            if all(self._domains[k].contains(v) for k, v in params.items())
        ]
        learns = len(past) >= FIRST_RANDOM and len(finite)
        kind = self._study.searcher if learns else "random"
        draw = int(np.random.SeedSequence([self._study.seed, arm]).generate_state(1)[0])
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize", sampler=_sampler(kind, draw, past))
        study.add_trials(past)
        return complete(study.ask(), self._distributions, self._domains)

    def _past(self, params: dict[str, Scalar], value: float) -> FrozenTrial:
        return create_trial(
            state=TrialState.COMPLETE,
            params=dict(params),
            distributions=self._distributions,
            value=value,
        )


def _sampler(kind: str, seed: int, past: Sequence[FrozenTrial]) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "tpe":
            return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=0)
        if kind == "gp":
            return GPSampler(seed=seed, n_startup_trials=0)
        if kind == "cmaes":
            return CmaEsSampler(
                seed=seed, source_trials=list(past), warn_independent_sampling=False
            )
        assert kind == "random", kind
        return RandomSampler(seed=seed)
