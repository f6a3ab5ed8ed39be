"""The policies by their names in search spaces."""

from __future__ import annotations

from ptal_ray.policy.race_policy import RacePolicy
from ptal_ray.policy.simple import SimplePolicy
from ptal_ray.study.policy import Policy
from ptal_ray.study.study import Study


def make_policy(study: Study) -> Policy:
    """The policy of a study; it creates or opens the Optuna journal in its directory."""
    return RacePolicy(study) if study.space.policy == "race" else SimplePolicy(study)
