"""The runs after a search."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import NoTrialFinished
from ptal_ray.study.event_types import FOLD, RESELECT
from ptal_ray.study.job import Job, study_job
from ptal_ray.study.paper_compat import VALIDATED, validated, validated_decode
from ptal_ray.study.study import Study, trial_config
from ptal_ray.study.view import StudyView, TrialView
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.whole_split import on_whole_split


def final_job(study: Study, role: str, arm: str, repeat: int, config: TrialConfig) -> Job:
    """A run after the search.

    Args:
        study: the study.
        role, arm, repeat: as for `Job`.
        config: what to train; its seed becomes the study's seed + 1 + the repeat, so that a
            configuration is not evaluated with the seed that selected it.
    """
    folder = f"final/{arm}_{'fold' if role == FOLD else 'seed'}{repeat}"
    config = replace(config, seed=study.seed + 1 + repeat)
    return replace(study_job(study, config, folder), role=role, arm=arm, repeat=repeat)


def final_jobs(study: Study, view: StudyView, role: str) -> tuple[Job, ...]:
    """The runs after the search.

    Args:
        study: the study.
        view: its events so far; for "test" with the recommendation in it.
        role: "reselect": the best configurations trained on the fit fold again, with several seeds,
            and scored on val to choose one; none if there is no choice.
            "test": the recommended configuration and the defaults, trained on the whole training
            split with several seeds and frozen decode parameters, and scored on the sealed test
            split; only the defaults if they are recommended. If the test split selected, also the
            configuration that the selection fold would have chosen.
            `no_test_split.py` has the other roles.

    Raises:
        NoTrialFinished: no trial reached its last report.
    """
    space, seeds = study.space, range(study.space.final.seeds)
    last = (space.budget.max_steps,)
    if role == RESELECT:
        top = candidates(study, view)
        arms = {
            f"candidate{k}": replace(trial_config(study, t.params), report_steps=last)
            for k, t in enumerate(top if len(top) > 1 else (), 1)
        }
    else:
        best = view.recommended
        assert best is not None, "test runs before a recommendation"
        store = FeatureStore.open(study.store)
        sealed: dict[str, Any] = {"decode_domains": {}, "score_on": "test", "select_on_test": False}
        default = replace(on_whole_split(trial_config(study, {}), store), **sealed)
        tuned = space.decode_defaults() | best.decode
        found = on_whole_split(trial_config(study, best.params), store)
        found = replace(found, decode=tuned, **sealed)
        arms = {"default": default} if found == default else {"best": found, "default": default}
        if space.selection.metric == "test" and (honest := validated(view)):
            config = on_whole_split(trial_config(study, honest.params), store)
            arms[VALIDATED] = replace(config, decode=validated_decode(space, honest), **sealed)
    return tuple(
        final_job(study, role, arm, k, config) for arm, config in arms.items() for k in seeds
    )


def candidates(study: Study, view: StudyView) -> list[TrialView]:
    """The `final.top` best complete trials with different parameters, best first."""
    distinct: dict[str, TrialView] = {}
    for trial in sorted(view.complete, key=lambda t: (-t.reports[-1].objective, t.number)):
        distinct.setdefault(json.dumps(trial.params, sort_keys=True), trial)
    if not distinct:
        raise NoTrialFinished(why_none_finished(study, view))
    return list(distinct.values())[: study.space.final.top]


def why_none_finished(study: Study, view: StudyView) -> str:
    """One line: the most frequent reason of failed trials, else that the time was too short."""
    trials, last = len(view.trials), study.space.budget.max_steps
    none = f"{study.name}: none of {trials} trials reached step {last}"
    said: dict[str, list[str]] = {}
    for trial in view.trials:
        if trial.state == "failed":  # the same reason may have different numbers
            said.setdefault(re.sub(r"[\d.]+", "0", trial.message), []).append(trial.message)
    if not said:
        return f"{none}; start a new study with more time or trials, or a lower budget.max_steps"
    most = max(said.values(), key=len)
    return f"{none}; {len(most)} of {trials} failed: {most[-1]}"
