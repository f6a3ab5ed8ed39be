"""New configurations for a race, learnt from the posterior of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from ptal_ray.policy.optuna_searcher import GOOD, MOST_LEARNT, complete, distribution, grid
from ptal_ray.policy.samplers import sampler
from ptal_ray.space.domain import Scalar
from ptal_ray.space.untried import number_of_points, point, untried
from ptal_ray.study.study import Study
from ptal_ray.study.warm_start import tried_first

Floats = NDArray[np.float64]
FIRST_RANDOM = 10  # most arms before a searcher learns; the minimum for CMA-ES
RANDOM_SHARE = 0.25  # at most, of the full runs of a race
MOST_CHANGED = 4  # number of parameters that a configuration near the defaults changes
MOST_NEAR = 0.5  # fraction of configurations near the defaults if these are the best known


class Suggester:
    """Suggests arms: the defaults, random ones, then those of the searcher, which learns from the
    posterior. It starts when ten configurations are known, or if that is less, as many as a quarter
    of the budget; CMA-ES needs ten. A fraction of the arms changes up to four of the default
    values; it grows with the number of arms worse than the defaults.

    The best configurations of earlier studies follow directly after the defaults. The searcher also
    learns from all their configurations, and configurations near the best ones are as likely as
    near the defaults.

    A suggestion depends only on the seed, the number of the arm, the posterior and the earlier
    studies. No configuration is suggested twice.

    Source: the prior around the defaults is that of PriorBand, Mallik et al. 2023, in a simpler
    form; a quarter of the budget at most is the rule of SMAC3's initial design.
    """

    def __init__(self, study: Study) -> None:
        space = study.space
        self._study, self._domains = study, space.train
        self._distributions = {k: distribution(d) for k, d in space.train.items()}
        defaults = space.train_defaults()
        self.defaults = {name: defaults[name] for name in space.train}
        self._grid = grid(study) if study.searcher == "grid" else None
        self._first = tried_first(study.warm_start, space)
        few = FIRST_RANDOM if study.searcher == "cmaes" else int(RANDOM_SHARE * study.num_trials)
        self._random = min(FIRST_RANDOM, few)
        self._learnt: optuna.Study | None = None
        self._learnt_arms: list[int] = []

    def suggest(
        self, arm: int, known: Sequence[dict[str, Scalar]], believed: Floats
    ) -> dict[str, Scalar] | None:
        """The configuration of arm `arm`.

        Args:
            arm: its number; 0 for the defaults.
            known: configurations of the arms before it.
            believed: (arm,) their posterior means, NaN if unknown.

        Returns:
            The searched parameters, or None if all configurations are taken.
        """
        if arm == 0:
            return dict(self.defaults)
        if arm <= len(self._first):
            return dict(self._first[arm - 1])
        taken = {point(self._domains, params) for params in known}
        if self._grid is not None:
            return next((p for p in self._grid if point(self._domains, p) not in taken), None)
        rng = np.random.default_rng([self._study.seed, arm, 2])
        if rng.random() < MOST_NEAR * self._below_defaults(believed):
            wanted = self._near_defaults(rng)
        else:
            wanted = self._drawn(arm, known, believed)
        if number_of_points(self._domains) is not None:
            return untried(self._domains, wanted, taken, rng)
        if point(self._domains, wanted) in taken:  # such as a corner that a searcher prefers
            return {name: d.sample(float(rng.random())) for name, d in self._domains.items()}
        return wanted

    def _below_defaults(self, believed: Floats) -> float:
        """Fraction of the other arms with a posterior mean below the defaults; 1/2 at the start."""
        others = believed[1:][np.isfinite(believed[1:])]
        if not len(others) or not np.isfinite(believed[0]):
            return 0.5
        return float((1 + (others < believed[0]).sum()) / (2 + len(others)))

    def _near_defaults(self, rng: np.random.Generator) -> dict[str, Scalar]:
        names = list(self._domains)
        most = min(MOST_CHANGED, len(names))
        changed = rng.permutation(len(names))[: int(rng.integers(1, most + 1))]
        drawn = {names[k]: self._domains[names[k]].sample(float(rng.random())) for k in changed}
        centres = [self.defaults, *self._first]
        return centres[int(rng.integers(len(centres)))] | drawn

    def _drawn(
        self, arm: int, known: Sequence[dict[str, Scalar]], believed: Floats
    ) -> dict[str, Scalar]:
        study = self._taught(known, believed)
        past = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        learns = len(past) >= self._random and bool(np.isfinite(believed).any())
        name = self._study.searcher if learns else "random"
        study.sampler = sampler(name, [self._study.seed, arm], past)
        trial = study.ask()
        found = complete(trial, self._distributions, self._domains)
        study.tell(trial, state=TrialState.FAIL)  # its outcome is learnt from another trial
        return found

    def _taught(self, known: Sequence[dict[str, Scalar]], believed: Floats) -> optuna.Study:
        """An Optuna study with the earlier studies' configurations, then the arms to learn from.

        Only values change from one suggestion to the next. They are replaced in the trials that
        Optuna's storage in memory keeps, because adding a trial copies it, which takes longer than
        the rest of a suggestion. CMA-ES keeps its state in trials, so its study is always new.
        """
        finite = believed[np.isfinite(believed)]
        lie = float(finite.min()) if len(finite) else 0.0  # value of running arms
        arms = [
            arm
            for arm in _kept(believed)
            if all(self._domains[k].contains(v) for k, v in known[arm].items())
        ]
        grown = arms[: len(self._learnt_arms)] == self._learnt_arms
        if self._learnt is None or not grown or self._study.searcher == "cmaes":
            self._learnt, self._learnt_arms = _empty_study(), []
            self._learnt.add_trials([self._past(one.params) for one in self._study.warm_start])
        self._learnt.add_trials([self._past(known[a]) for a in arms[len(self._learnt_arms) :]])
        self._learnt_arms = arms
        means = np.where(np.isnan(believed), lie, believed)[arms]
        stored = self._learnt.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for past, value in zip(stored, [*self._earlier(finite), *means.tolist()], strict=True):
            past.value = value
        return self._learnt

    def _earlier(self, finite: Floats) -> list[float]:
        """The values of configurations of earlier studies, on the scale of posterior means."""
        middle = float(finite.mean()) if len(finite) else 0.0
        spread = float(finite.std()) if len(finite) > 1 else 0.0
        return [middle + one.value * (spread or 1.0) for one in self._study.warm_start]

    def _past(self, params: dict[str, Scalar]) -> FrozenTrial:
        return create_trial(
            state=TrialState.COMPLETE,
            params=dict(params),
            distributions=self._distributions,
            value=0.0,  # see _taught
        )


def _empty_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize")


def _kept(believed: Floats) -> list[int]:
    """The arms that a searcher learns from, in their order: if there are too many, the best (all
    that TPE counts as good) and the newest. The oldest are left out 32 at a time, so that the
    others rarely change."""
    order = np.argsort(-np.nan_to_num(believed, nan=-np.inf), kind="stable")
    others = np.sort(order[GOOD:])
    most = MOST_LEARNT - GOOD
    excess = -(-max(len(others) - most, 0) // 32) * 32
    return sorted([*order[:GOOD].tolist(), *others[excess:].tolist()])
