"""New arms of a race: every searcher, and what a suggestion depends on."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_store

from ptal_ray.data.store import FeatureStore
from ptal_ray.policy.optuna_searcher import GOOD, MOST_LEARNT
from ptal_ray.policy.suggester import FIRST_RANDOM, Suggester, _kept
from ptal_ray.space.space import parse_space
from ptal_ray.study.choices import SEARCHERS
from ptal_ray.study.study import create_study
from ptal_ray.study.warm_start import Earlier

SPACE = """
method: lacp
dataset: tiny
policy: race
selection: {metric: map, val_fraction: 0.34, decode_settings: 2}
budget: {trials: 40, min_steps: 10, max_steps: 40, eta: 2}
train:
  lr: {loguniform: [1.0e-4, 1.0e-2]}
  dropout: {uniform: [0.3, 0.8]}
  delta: {quniform: [0.05, 0.55, 0.1]}
  r_act: {choice: [2, 4, 8]}
  feature_samples: {randint: [1, 9]}
final: {top: 2, seeds: 2}
"""
ARMS = FIRST_RANDOM + 12
EVERY = [name for name in SEARCHERS if name != "grid"]  # a grid needs no suggestions


@pytest.fixture
def make(tmp_path):
    """Makes a suggester of a searcher."""
    store = FeatureStore.open(make_store(tmp_path / "tiny", train=9))
    space = parse_space(SPACE, name="small", source="small.yaml")

    def suggester(searcher: str, warm_start: tuple[Earlier, ...] = ()) -> Suggester:
        return Suggester(
            create_study(
                space, store, tmp_path / "studies", searcher=searcher, warm_start=warm_start
            )
        )

    return suggester


def means(rng: np.random.Generator, arms: int) -> np.ndarray:
    """Posterior means of all arms but the newest two, which are running."""
    found = rng.uniform(0.2, 0.8, arms)
    found[-2:] = np.nan
    return found


def suggested(suggester: Suggester) -> list[dict]:
    """Arms of a race in which all posterior means change between two suggestions."""
    rng, known = np.random.default_rng(0), list[dict]()
    while len(known) < ARMS:
        arm = suggester.suggest(len(known), known, means(rng, len(known)))
        assert arm is not None
        known.append(arm)
    return known


@pytest.mark.parametrize("searcher", EVERY)
def test_every_searcher_suggests_all_kinds_of_parameters(make, searcher):
    suggester = make(searcher)
    found = suggested(suggester)
    domains = parse_space(SPACE, name="small", source="small.yaml").train
    assert found[0] == suggester.defaults
    for params in found[1:]:
        assert list(params) == list(domains)
        assert all(domains[name].contains(value) for name, value in params.items())
    assert len({tuple(params.values()) for params in found}) == ARMS


@pytest.mark.parametrize("searcher", EVERY)
def test_a_suggestion_depends_on_the_posterior_and_not_on_earlier_suggestions(make, searcher):
    earlier = [
        Earlier(study="one", params=make("random").defaults | {"lr": lr}, value=value, place="")
        for lr, value in ((2e-3, 1.0), (5e-4, -1.0))
    ]
    used = make(searcher, tuple(earlier))
    known = suggested(used)
    for seed in range(3):
        now = means(np.random.default_rng(seed), len(known))
        fresh = make(searcher, tuple(earlier))
        assert used.suggest(ARMS, known, now) == fresh.suggest(ARMS, known, now)


@pytest.mark.parametrize("searcher", ["tpe", "cmaes"])
@pytest.mark.parametrize("best", [3e-4, 3e-3])
def test_a_searcher_learns_from_the_posterior(make, searcher, best):
    """It draws near the arms whose mean is high, whichever they are."""
    suggester = make(searcher)
    known = [suggester.defaults | {"lr": float(lr)} for lr in np.geomspace(1.1e-4, 0.9e-2, 40)]
    rates = np.array([arm["lr"] for arm in known])
    now = 0.5 - 0.1 * np.abs(np.log(rates / best))
    now[0] = 0.0  # the defaults are the worst, so few suggestions are near them
    drawn = [suggester.suggest(arm, known, now)["lr"] for arm in range(40, 80)]
    assert abs(np.log(np.median(drawn) / best)) < np.log(2.5)


def test_of_many_arms_a_searcher_learns_from_the_best_and_the_newest():
    believed = np.random.default_rng(0).random(400)
    kept = _kept(believed)
    assert MOST_LEARNT - 32 < len(kept) <= MOST_LEARNT
    assert set(np.argsort(-believed)[:GOOD].tolist()) <= set(kept)
    assert set(range(400 - 190, 400)) <= set(kept)
    assert _kept(believed[:100]) == list(range(100))
    same = sum(_kept(believed[: n + 1])[: len(_kept(believed[:n]))] == _kept(believed[:n])
               for n in range(300, 400))  # fmt: skip
    assert same > 80
