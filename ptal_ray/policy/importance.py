"""The importance of hyperparameters in a study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import TrialState, create_trial

from ptal_ray.policy.optuna_searcher import distribution
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.study.view import StudyView, TrialView

MIN_TRIALS = 8
LEAST_SPREAD = 1e-6  # spread of the objectives; a smaller one is rounding


def param_importance(view: StudyView) -> dict[str, float]:
    """Fraction of the variance of the objective that each searched train parameter explains.

    Pruned trials have no last objective, so all trials are compared at the first report step, which
    all of them reached.

    Args:
        view: the study.

    Returns:
        Fractions by parameter, largest first, summing to 1; empty with fewer than MIN_TRIALS
        trials, if all objectives are equal up to rounding, or if all parameters are equal.

    Source: fANOVA (Hutter et al., 2014), as Optuna implements it.
    """
    domains = {
        name: Domain.from_dict(value)
        for name, value in view.study.space.get("train", {}).items()
        if isinstance(value, dict)
    }
    reported = [
        trial
        for trial in view.trials
        if trial.reports
        and math.isfinite(trial.reports[0].objective)
        and all(domain.contains(trial.params[name]) for name, domain in domains.items())
    ]
    if len(reported) < MIN_TRIALS or not _differ(reported, domains):
        return {}
    points = [{name: trial.params[name] for name in domains} for trial in reported]
    values = [trial.reports[0].objective for trial in reported]
    found = explained(domains, points, values, FanovaImportanceEvaluator(seed=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def explained(
    domains: Mapping[str, Domain],
    points: Sequence[Mapping[str, Scalar]],
    values: Sequence[float],
    evaluator: FanovaImportanceEvaluator,
) -> dict[str, float]:
    """Fraction of the variance that each parameter explains; empty if there is nothing to explain.

    Args:
        domains: of the parameters.
        points: parameters of each trial, inside the domains.
        values: objective of each trial.
        evaluator: the trees.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    distributions = {name: distribution(domain) for name, domain in domains.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.add_trials([
            create_trial(state=TrialState.COMPLETE, value=value, params=dict(point),
                         distributions=distributions)
            for point, value in zip(points, values, strict=True)
        ])  # fmt: skip
        try:
            found = evaluator.evaluate(study)
        except RuntimeError:  # no tree has a split
            return {}
    total = sum(found.values())
    return {name: value / total for name, value in found.items()} if total > 0 else {}


def _differ(trials: list[TrialView], domains: Mapping[str, Domain]) -> bool:
    """Whether both objectives and parameters differ between trials."""
    values = [trial.reports[0].objective for trial in trials]
    points = {tuple(trial.params[name] for name in domains) for trial in trials}
    return max(values) - min(values) > LEAST_SPREAD and len(points) > 1
