"""The runs after a search on data without a test split: on folds, and one for a model.

Without a test set, the recommended configuration cannot be evaluated on videos that the search
never used. The results are cross-validated instead, see `cross_validation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ptal_ray.data.store import FeatureStore
from ptal_ray.space.space import SearchSpace
from ptal_ray.study.event_types import DEPLOY, FOLD, TEST
from ptal_ray.study.finals import final_job
from ptal_ray.study.job import Job
from ptal_ray.study.study import Study, num_folds, trial_config
from ptal_ray.study.view import StudyView
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.whole_split import on_whole_split


def last_roles(study: Study) -> tuple[str, ...]:
    """The roles of the runs after the recommendation.

    "test" if there is a test split. Else "deploy", one run on all videos, and before it "fold" if
    trials were scored on only one fold; the trials of a race are already cross-validated.
    """
    if FeatureStore.open(study.store).ids("test"):
        return (TEST,)
    return (DEPLOY,) if study.space.policy == "race" else (FOLD, DEPLOY)


def runs_again(space: SearchSpace, trials: int) -> int:
    """The largest number of runs that train the best of so many trials again before the
    recommendation."""
    top = min(space.final.top, trials)
    chosen = space.policy == "race" or space.selection.metric == "test" or top == 1
    return 0 if chosen else top * space.final.seeds


def runs_after(space: SearchSpace, has_test: bool) -> tuple[int, int]:
    """The largest number of runs after a recommendation, and how many of them write a model."""
    if has_test:
        arms = 3 if space.selection.metric == "test" else 2  # also what validation would choose
        return arms * space.final.seeds, arms * space.final.seeds
    return (1 if space.policy == "race" else 2 * num_folds(space) + 1), 1


def untested_jobs(study: Study, view: StudyView, role: str) -> tuple[Job, ...]:
    """The runs of role "fold" or "deploy".

    Args:
        study: the study.
        view: its events, with the recommendation among them.
        role: "fold": the recommended configuration and the defaults, on every fold of the training
            split.
            "deploy": the recommended configuration, trained on all videos and scored on none.
    """
    if role == DEPLOY:
        arm, config = next(_arms(study, view))
        whole = on_whole_split(config, FeatureStore.open(study.store))
        whole = replace(whole, score_on="none")
        return (final_job(study, role, arm, 0, whole),)
    return tuple(
        final_job(study, role, arm, k, config)
        for k in range(study.num_folds)
        for arm, config in _arms(study, view, k)
    )


def _arms(
    study: Study, view: StudyView, fold: int | None = None
) -> Iterator[tuple[str, TrialConfig]]:
    """The recommended configuration, then the defaults if they differ; decode parameters frozen."""
    best = view.recommended
    assert best is not None, "runs after a search before a recommendation"
    last = (study.space.budget.max_steps,)
    default = trial_config(study, {}, fold=fold)
    default = replace(default, decode_domains={}, report_steps=last)
    found = trial_config(study, best.params, fold=fold)
    decode = study.space.decode_defaults() | best.decode
    found = replace(found, decode=decode, decode_domains={}, report_steps=last)
    if found != default:
        yield "best", found
    yield "default", default
