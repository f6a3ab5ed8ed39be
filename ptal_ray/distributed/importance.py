"""Which hyperparameters decided a study."""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from ptal_ray.distributed.searcher import distribution
from ptal_ray.domain import Domain
from ptal_ray.tracking import StudyView

MIN_TRIALS = 8


def param_importance(view: StudyView) -> dict[str, float]:
    """Share of the variance of the objective that each searched train parameter explains.

    Pruned trials have no last objective, so all trials are compared at the first report step,
    which every one of them reached.

    Args:
        view: the study.

    Returns:
        Shares by parameter, largest first, summing to 1; empty with fewer than MIN_TRIALS trials
        or where all did equally well.

    Source: fANOVA (Hutter et al., 2014), as Optuna implements it.
    """
    domains = {
        name: Domain.from_dict(value)
        for name, value in view.study.get("space", {}).get("train", {}).items()
        if isinstance(value, dict)
    }
    reported = [t for t in view.trials if t.reports and math.isfinite(t.reports[0].objective)]
    values = {t.reports[0].objective for t in reported}
    if not domains or len(reported) < MIN_TRIALS or len(values) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    distributions = {name: distribution(domain) for name, domain in domains.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for trial in reported:
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    value=trial.reports[0].objective,
                    params={name: trial.params[name] for name in domains},
                    distributions=distributions,
                )
            )
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))
