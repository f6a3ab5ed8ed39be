"""Races of toy studies: trials that score by their learning rate, with noise."""

from __future__ import annotations

import numpy as np
import pytest
import toy_study

from ptal_ray.backends.local import run_local
from ptal_ray.policy.policies import make_policy
from ptal_ray.study import job as jobs


class FakeTrial(toy_study.FakeTrial):
    """Its objective is how near the learning rate is to 0.05, with noise by fold and seed."""

    best, noise = 0.05, 0.003

    def value(self):
        config = self.config
        rng = np.random.default_rng([config.seed, config.fold, int(config.train["lr"] * 1e9)])
        off = abs(np.log(config.train["lr"] / self.best))
        return 0.8 - 0.1 * off + self.noise * rng.normal() - 0.1 / self.step


def run(study, factory=FakeTrial):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "start", factory)
        return run_local(study, make_policy(study))
