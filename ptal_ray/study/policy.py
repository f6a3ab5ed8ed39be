"""The interface of a policy: it chooses the next run, stops runs, and recommends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import Recommendation, TrialEnd
from ptal_ray.study.view import StudyView


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A search trial.

    Args:
        params: searched train parameters; missing ones have their default.
        arm: number of the configuration; 0 for the defaults. Trials of one arm differ in `cell`.
        cell: number of the run within its arm; determines fold and seed.
        fold: part of the training split to score on; None for the one of `selection.val_fraction`.
        seed: of the run.
        stage: "search", or in a race "screen", "race" or "gate".
    """

    params: dict[str, Scalar]
    arm: int
    cell: int = 0
    fold: int | None = None
    seed: int = 0
    stage: str = "search"


def spent(state: str, step: int, max_steps: int) -> float:
    """The full runs that an ended trial of a race takes from its budget.

    Args:
        state: "complete", "pruned" or "failed"; a failed one counts in full, so that a study in
            which all fail ends.
        step: of its last report; 0 for none.
        max_steps: steps of a full run.
    """
    return 1.0 if state == "failed" else step / max_steps


class Policy(Protocol):
    """Suggests trials and learns from them. Numbers of trials ascend from 0."""

    reselects: bool  # whether the best trials are trained again before one is recommended

    def restore(self, view: StudyView) -> set[int]:
        """Take the trials of an interrupted run; called once, before all other methods.

        Returns:
            The running trials that their last report stops.
        """

    def spend(self, share: float) -> None:
        """Take the fraction of the time, or of the GPU hours, of the search that is used."""

    def suggest(self, number: int) -> Suggestion | None:
        """The next trial; None if there is none, or none before others have ended."""

    def report(self, number: int, step: int, objective: float) -> bool:
        """Take the objective of a trial at a report step; returns whether to stop it."""

    def finish(self, end: TrialEnd, settings: tuple[float, ...], step: int) -> None:
        """Take the end of a trial.

        Args:
            end: its event; a crash says nothing about its configuration.
            settings: objectives of all decode settings at its last report, the default first.
            step: of its last report; 0 for none.
        """

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Take facts about a trial that are displayed, not searched."""

    def recommend(self, view: StudyView) -> Recommendation | None:
        """The recommendation; None if no trial reached its last report."""
