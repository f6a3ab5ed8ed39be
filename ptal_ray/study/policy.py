"""What a study asks of a policy: which run is next, which one stops, and what is recommended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ptal_ray.space.domain import Scalar
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


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What a search recommends, by its own evidence.

    Args:
        arm: number of the configuration; 0 for the defaults.
        trial: the first trial of that arm; None for the defaults.
        params: its searched train parameters; empty for the defaults.
        decode: all its decode parameters.
        setting: number of that decode setting in the reports of trials; 0 for the default one.
        verdict: "better", "tie" or "defaults", see `policy.race.Verdict`; "" where the policy does
            not compare with the defaults.
        difference: {"mean", "low", "high", "cells"} to the defaults, fractions of mAP; empty where
            they were not compared.
        arms: what is believed of each arm, best first: {"arm", "trial", "params", "cells", "mean",
            "sd", "state"}; empty where the policy has no beliefs.
    """

    arm: int
    trial: int | None
    params: dict[str, Scalar]
    decode: dict[str, Scalar]
    setting: int = 0
    verdict: str = ""
    difference: Mapping[str, float]
    arms: tuple[Mapping[str, Any], ...] = ()


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
