"""What a study asks of a policy: which run is next, which one stops, and what is recommended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import Recommendation
from ptal_ray.study.view import StudyView


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A search trial.

    Args:
        params: searched train parameters; empty values stay at their default.
        arm: number of the configuration; 0 for the defaults. Trials of one arm differ in `cell`.
        cell: which of the runs of its arm; says fold and seed.
        fold: part of the training split to score on; None for the one of `selection.val_fraction`.
        seed: of the run.
        stage: why it runs: "search", or "screen", "race" and "gate" of a race.
    """

    params: dict[str, Scalar]
    arm: int
    cell: int = 0
    fold: int | None = None
    seed: int = 0
    stage: str = "search"


class Policy(Protocol):
    """Suggests trials and learns from them. Numbers of trials ascend from 0."""

    reselects: bool  # whether the best trials are trained again before one is recommended

    def restore(self, view: StudyView) -> None:
        """Takes the trials of an interrupted run; called once, before all others."""

    def spend(self, share: float) -> None:
        """Takes which share of the time, or of the GPU hours, allowed for the search is spent."""

    def suggest(self, number: int) -> Suggestion | None:
        """The next trial; None where there is none, or (see `waiting`) not yet."""

    @property
    def waiting(self) -> bool:
        """Whether the end of running trials may bring more."""

    def report(self, number: int, step: int, objective: float) -> bool:
        """Takes the objective of a trial at a report step; whether to stop it."""

    def finish(self, number: int, state: str, settings: tuple[float, ...], step: int) -> None:
        """Takes the end of a trial.

        Args:
            number: which.
            state: "complete", "pruned" or "failed".
            settings: objectives of all decode settings at its last report, the default first.
            step: of its last report; 0 for none.
        """

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Takes facts about a trial that are shown and not searched."""

    def recommend(self, view: StudyView) -> Recommendation | None:
        """What the search recommends; None where no trial reached its last report."""
