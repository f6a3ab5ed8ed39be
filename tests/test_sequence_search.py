"""The exact search against every other: brute force, and the beam with any budget."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ptal_ray.ops.sequence_search import (
    Windows,
    action_runs,
    beam_search,
    class_windows,
    clipped_search,
    exact_search,
    sequence_score,
)


@st.composite
def problems(draw: st.DrawFn, most: int = 40) -> tuple[np.ndarray, Windows, float]:
    """Sums of scores, states and the width of surroundings."""
    length = draw(st.integers(1, most))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    score = rng.random(length) ** draw(st.sampled_from([0.3, 1.0, 4.0]))
    kinds = rng.choice(3, length, p=draw(st.sampled_from([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]])))
    kinds[rng.integers(length)] = 1
    states = class_windows(kinds == 1, kinds == 2)
    delta = draw(st.sampled_from([0.1, 0.25, 0.5, 1.0]))
    return np.concatenate([[0.0], np.cumsum(score)]), states, delta


def allowed(starts: np.ndarray, states: Windows) -> bool:
    between = zip(starts[1:], states.last[:-1], states.first[1:], strict=True)
    return starts[0] == 0 and all(low < x <= high for x, low, high in between)


@given(problems(most=14))
@settings(deadline=None, max_examples=60)
def test_exact_is_the_best_of_all(problem: tuple[np.ndarray, Windows, float]) -> None:
    sums, states, delta = problem
    found = exact_search(sums, states, delta)
    assert allowed(found, states)
    ranges = [
        range(low + 1, high + 1)
        for low, high in zip(states.last[:-1], states.first[1:], strict=True)
    ]
    best = max(
        sequence_score(sums, np.array([0, *rest]), states.action_first, delta)
        for rest in itertools.islice(itertools.product(*ranges), 20000)
    )
    value = sequence_score(sums, found, states.action_first, delta)
    assert value >= best - 1e-9


@given(problems(), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.3]))
@settings(deadline=None, max_examples=60)
def test_exact_never_scores_below_a_beam(
    problem: tuple[np.ndarray, Windows, float], budget: int, prune: float
) -> None:
    sums, states, delta = problem
    exact = exact_search(sums, states, delta)
    beam = beam_search(sums, states, delta, budget=budget, prune=prune)
    assert allowed(beam, states)
    scores = [sequence_score(sums, s, states.action_first, delta) for s in (exact, beam)]
    assert scores[0] >= scores[1] - 1e-9


@given(problems())
@settings(deadline=None, max_examples=40)
def test_runs_cover_the_seeds(problem: tuple[np.ndarray, Windows, float]) -> None:
    sums, states, delta = problem
    begins, ends = action_runs(exact_search(sums, states, delta), states, len(sums) - 1)
    first = 0 if states.action_first else 1
    assert (begins <= np.maximum(states.first[first::2], 0)).all()
    assert (ends >= states.last[first::2]).all()
    assert (begins[1:] > ends[:-1] + 1).all()


def test_a_seed_of_the_class_counts_more_than_background() -> None:
    action, background = np.zeros(12, bool), np.zeros(12, bool)
    action[2:5], background[3], background[8:10] = True, True, True
    states = class_windows(action, background)
    assert states.first.tolist() == [2, 8]
    assert states.last.tolist() == [4, 9]
    assert states.action_first


@given(problems(most=12))
@settings(deadline=None, max_examples=60)
def test_clipped_search_is_close_to_the_best_of_all(
    problem: tuple[np.ndarray, Windows, float],
) -> None:
    sums, states, delta = problem
    found = clipped_search(sums, states, delta)
    assert allowed(found, states)
    plain = exact_search(sums, states, delta)
    scores = [
        sequence_score(sums, s, states.action_first, delta, clipped=True) for s in (found, plain)
    ]
    assert scores[0] >= scores[1]
