"""How much of a study is done, and how long the rest takes at the pace so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptal_ray.ops.proxy import ranks
from ptal_ray.space.space import SearchSpace
from ptal_ray.study.no_test_split import runs_after, runs_again
from ptal_ray.study.policy import spent
from ptal_ray.study.view import StudyView, TrialView

SOME = 3  # ended trials from which the length of the others is estimated


@dataclass(frozen=True, kw_only=True)
class Work:
    """Training steps of a study.

    Args:
        done: steps that are done.
        search: steps that its search takes in all, as far as is known.
        total: the same with the runs after the search.
        begun: whether any report has come.
        spent: of the budget of the search: full runs in a race, else ended trials.
    """

    done: int
    search: int
    total: int
    begun: bool
    spent: float = 0.0

    @property
    def share(self) -> float:
        """Of the whole study, 0 to 1."""
        return min(1.0, self.done / max(1, self.total))


def work(view: StudyView, space: SearchSpace, num_trials: int) -> Work:
    """The steps of a study.

    The rest of a race is what is left of its budget. In other searches, a trial that has not ended
    is taken to be as long as those that have.

    Args:
        view: the study so far.
        space: its space, which says how many runs follow the search.
        num_trials: budget of the search: full runs in a race, else trials.
    """
    last = space.budget.max_steps
    steps = [trial.step for trial in view.trials]
    ended = [own for own, t in zip(steps, view.trials, strict=True) if t.state != "running"]
    each = sum(ended) / len(ended) if len(ended) >= SOME else last
    used = float(len(ended))
    if space.policy == "race":
        each = last
        used = sum(spent(t.state, t.step, last) for t in view.trials if t.state != "running")
    left = 0 if view.finals or view.end else max(0, num_trials - used)
    search = sum(steps) if not left else round(sum(ended) + left * each)
    finals = runs_again(space, num_trials) + runs_after(space, view.has_test)[0]
    done = sum(steps) + sum(run.step for run in view.finals)
    whole = max(search + finals * last, done)
    begun = any(trial.reports for trial in view.trials) or bool(view.finals)
    return Work(done=done, search=search, total=whole, begun=begun, spent=used)


def seconds_left(
    own: Work, before: int, elapsed_s: float, budget_left_s: float | None
) -> float | None:
    """Seconds to the end of the study; None before anything is known.

    Args:
        own: the steps now.
        before: steps that were done when this process began.
        elapsed_s: seconds since then.
        budget_left_s: seconds that the search may still take; None where there is no limit.
    """
    if not own.begun or own.done <= before:
        return None
    pace = elapsed_s / (own.done - before)
    finals = own.total - own.search
    search = pace * max(0, own.search - own.done)
    if budget_left_s is not None:
        search = min(search, max(0.0, budget_left_s))
    after = min(finals, own.total - own.done)
    return search + pace * max(0, after)


def influential(trials: Sequence[TrialView], names: Sequence[str]) -> list[str]:
    """Parameters by how much the first reports rise or fall with them, the most first.

    As given before enough trials have reported. Choices count by their order of appearance.
    """
    seen = [t for t in trials if t.reports and t.finite]
    if len(seen) < 2 * SOME:
        return list(names)
    value = ranks(np.array([t.reports[0].objective for t in seen]))
    value = value - value.mean()
    found = {}
    for name in names:
        column = [t.params.get(name) for t in seen]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in column)
        places = list(dict.fromkeys(map(str, column)))
        own = [float(v) if numeric and v is not None else places.index(str(v)) for v in column]
        found[name] = abs(float(ranks(np.array(own, float)) @ value))
    return sorted(names, key=lambda name: -found[name])
