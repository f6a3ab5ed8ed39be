"""Races in which runs fail: of the defaults, or of all configurations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_race import FakeTrial, run
from toy_study import space, toy_store, use_toy

from ptal_ray.errors import DivergedError, NoTrialFinished
from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.evidence import evidence, evidence_text
from ptal_ray.study.study import create_study


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


@pytest.fixture
def study(store, tmp_path):
    plan = replace(space("budget.trials=24"), policy="race")
    return create_study(plan, store, tmp_path / "studies", seed=5)


def test_defaults_that_diverge_are_left(study):
    class Diverging(FakeTrial):
        def advance(self):
            if self.config.train["lr"] == 0.02 and self.config.score_on == "val":
                raise DivergedError("train/loss_total: nan by step 2; lower lr")
            return super().advance()

    view = run(study, Diverging)
    assert view.recommended.verdict == "better"
    assert view.recommended.difference["mean"] > 0.5


def test_a_race_in_which_all_diverge_says_so(study):
    class Hopeless(FakeTrial):
        def advance(self):
            raise DivergedError("train/loss_total: nan by step 2; lower lr")

    with pytest.raises(NoTrialFinished, match="reached step 8"):
        run(study, Hopeless)


@pytest.mark.parametrize("kind", ["crash", "nan"])
def test_defaults_that_cannot_be_trained_are_not_recommended(study, kind):
    class Broken(FakeTrial):
        def advance(self):
            if kind == "crash" and self.config.train["lr"] == 0.02:
                raise RuntimeError("CUDA out of memory")
            return super().advance()

        def value(self):
            return float("nan") if self.config.train["lr"] == 0.02 else super().value()

    view = run(study, Broken)
    found = view.recommended
    assert found.verdict == "better" and found.params["lr"] != 0.02
    assert found.difference["low"] > 0.5  # they count as 0
    assert view.trials[found.trial].arm == found.arm
    assert "the defaults could not be trained and count as 0" in evidence_text(evidence(view))


def test_one_lost_process_of_the_defaults_counts_for_nothing(study):
    class Lost(FakeTrial):
        best = 0.02

        def advance(self):
            if self.config.train["lr"] == 0.02 and self.config.seed == 5:
                raise RuntimeError("lost")
            return super().advance()

    view = run(study, Lost)
    assert view.trials[0].state == "failed"
    assert view.recommended.verdict in ("tie", "defaults")


@pytest.mark.parametrize(("crashed", "lost"), [(True, 1), (False, 0)])
def test_a_lost_process_says_nothing_about_the_defaults(study, crashed, lost):
    view = run(study)
    failed = next(t for t in view.trials if t.stage == "gate" and t.arm == 0)
    trials = [
        replace(t, state="failed", crashed=crashed) if t == failed else t for t in view.trials
    ]
    policy = make_policy(study)
    policy.restore(replace(view, trials=tuple(trials)))
    found = policy.recommend(view).difference
    assert found["cells"] == view.recommended.difference["cells"] - lost
    assert (found["mean"] > view.recommended.difference["mean"] + 0.1) != crashed
