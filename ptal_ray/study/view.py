"""A view of a study from its events: its trials, its final runs and the best of them.

MLflow, reports, resume and the live table all read the same log (`events.py`) through this view.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeGuard

import numpy as np

from ptal_ray.errors import DataError
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.space.space import Budget, Final, Resources, SearchSpace, Selection
from ptal_ray.study.event_types import (
    Event,
    FinalReport,
    Recommendation,
    Report,
    Restart,
    StudyEnd,
    StudyStart,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import read_events

STATES = ("running", "complete", "pruned", "failed")


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """One trial.

    Args:
        number: its number in the study.
        params: searched train parameters.
        arm: number of its configuration; trials of one arm differ in `cell`.
        cell: number of the run within its arm.
        fold: the fold of the training split for scoring; None for the one of the space.
        seed: of the run; None in logs of earlier versions.
        stage: "search", or in a race "screen", "race" or "gate".
        state: running, complete, pruned or failed; a killed trial stays running.
        started, ended: seconds since 1970.
        message: the reason of a failure.
        crashed: whether it failed because its processes were lost.
        reports: by ascending step; for each step the last report.
    """

    number: int
    params: dict[str, Scalar]
    arm: int = 0
    cell: int = 0
    fold: int | None = None
    seed: int | None = None
    stage: str = "search"
    state: str = "running"
    started: float = math.nan
    ended: float | None = None
    message: str = ""
    crashed: bool = False
    reports: tuple[Report, ...] = ()

    @property
    def step(self) -> int:
        """The step of the last report; 0 without one."""
        return self.reports[-1].step if self.reports else 0

    @property
    def objective(self) -> float | None:
        """The objective of the last report."""
        return self.reports[-1].objective if self.reports else None

    @property
    def finite(self) -> bool:
        """Whether the last report has a finite objective."""
        return self.objective is not None and math.isfinite(self.objective)

    def with_report(self, report: Report) -> TrialView:
        """This trial with one more report, which replaces an earlier one of the same step."""
        by_step = {r.step: r for r in self.reports} | {report.step: report}
        return replace(self, reports=tuple(by_step[s] for s in sorted(by_step)))


def in_order(trials: Iterable[TrialView]) -> Iterator[tuple[TrialView, Report | None]]:
    """The reports of trials, and None for their ends, in the order of time."""
    found: list[tuple[float, TrialView, Report | None]] = []
    for trial in trials:
        found += [(report.time, trial, report) for report in trial.reports]
        if trial.ended is not None:
            found.append((trial.ended, trial, None))
    for _, trial, report in sorted(found, key=lambda one: one[0]):
        yield trial, report


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric over seeds; `sd` is the sample standard deviation, None for a single seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study according to its events.

    Args:
        start: the newest "study" event; None before the first.
        end: the "study_end" event, or None while the study runs (or runs again).
        recommended: the recommendation of the search, or None before it ended.
        trials: by number.
        finals: by role, arm, seed; the last of each.
        started, updated: time of the first and of the last event; None without events.
        num_events: events read.
        incidents: restarts, interruptions, and the starts that continued, oldest first.
    """

    start: StudyStart | None = None
    end: StudyEnd | None = None
    recommended: Recommendation | None = None
    trials: tuple[TrialView, ...] = ()
    finals: tuple[FinalReport, ...] = ()
    started: float | None = None
    updated: float | None = None
    num_events: int = 0
    incidents: tuple[StudyStart | Restart | StudyEnd, ...] = ()

    @property
    def study(self) -> StudyStart:
        """The newest "study" event.

        Raises:
            DataError: there is none.
        """
        if self.start is None:
            raise DataError("events.jsonl: has no study event; was the search started?")
        return self.start

    def extend(self, events: Iterable[Event]) -> StudyView:
        """The view after `events`, oldest first."""
        growing = IncrementalView(self)
        for event in events:
            growing.take(event)
        return growing.view

    @staticmethod
    def from_events(events: Iterable[Event]) -> StudyView:
        """The view of a whole log."""
        return StudyView().extend(events)

    @staticmethod
    def read(study_dir: str | Path) -> StudyView:
        """The view of a study directory; raises as `read_events`."""
        return StudyView.from_events(read_events(Path(study_dir) / "events.jsonl"))

    @property
    def complete(self) -> tuple[TrialView, ...]:
        """The trials that reached their last report, with a finite objective."""
        return tuple(t for t in self.trials if t.state == "complete" and t.finite)

    @property
    def best(self) -> TrialView | None:
        """The trial of the recommended configuration; before one is recommended, the complete trial
        with the highest last objective, the first of equal ones. None if the defaults are."""
        if self.recommended:
            number = self.recommended.trial
            return next((t for t in self.trials if t.number == number), None)
        return max(self.complete, key=lambda t: (t.objective, -t.number), default=None)

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state, all four named."""
        states = Counter(t.state for t in self.trials)
        return {state: states[state] for state in STATES}

    def runs(self, role: str, arm: str) -> tuple[FinalReport, ...]:
        """The final runs of one arm, by seed."""
        return tuple(f for f in self.finals if (f.role, f.arm) == (role, arm))

    @property
    def has_test(self) -> bool:
        """Whether the data has a test split; in earlier versions all data had one."""
        return self.start is None or self.start.test_videos != 0

    def deployable(self) -> tuple[FinalReport, ...]:
        """The runs of the recommended configuration on the whole training split, which write
        models: those of arm "best", or if there are none, of "default"."""
        role = "test" if self.has_test else "deploy"
        return self.runs(role, "best") or self.runs(role, "default")

    def arms(self, role: str) -> tuple[str, ...]:
        """Arms that have final runs of `role`: "best" first, "default" last."""
        order = {"best": 0, "default": 2}
        found = {f.arm for f in self.finals if f.role == role}
        return tuple(sorted(found, key=lambda arm: (order.get(arm, 1), arm)))

    def best_config(self) -> tuple[dict[str, Scalar], dict[str, Scalar]] | None:
        """All train and all decode parameters of the winner, or None before a trial completed.

        The winner is the recommended configuration; in logs of earlier versions the tested one or
        that of the last event; else the best trial.
        """
        defaults = self.start.defaults if self.start else {"train": {}, "decode": {}}
        if self.recommended:
            found = self.recommended.params, self.recommended.decode
        elif tested := self.runs("test", "best"):
            return tested[0].params, tested[0].decode
        elif self.end and self.end.best_params:
            found = self.end.best_params, self.end.best_decode or {}
        elif self.best:
            found = self.best.params, self.best.reports[-1].decode
        else:
            return None
        return defaults["train"] | found[0], defaults["decode"] | found[1]


class IncrementalView:
    """A view that takes events one by one; the time per event does not grow with their number.
    Thread-safe.

    Args:
        view: the initial view.
    """

    def __init__(self, view: StudyView) -> None:
        self._view: StudyView | None = view
        self._plain = replace(view, trials=(), finals=(), incidents=())
        self.trials = {t.number: t for t in view.trials}
        self.finals = {(f.role, f.arm, f.seed): f for f in view.finals}
        self._incidents = list(view.incidents)
        self._guard = threading.Lock()

    @property
    def study(self) -> StudyStart:
        """The newest "study" event; raises as `StudyView.study`."""
        return self._plain.study

    @property
    def view(self) -> StudyView:
        """The view after all events so far; computed again only after another event."""
        with self._guard:
            if self._view is None:
                self._view = replace(
                    self._plain,
                    trials=tuple(self.trials[n] for n in sorted(self.trials)),
                    finals=tuple(self.finals[k] for k in sorted(self.finals)),
                    incidents=tuple(self._incidents),
                )
            return self._view

    def take(self, event: Event) -> None:
        """Add the next event."""
        with self._guard:
            self._take(event)

    def _take(self, event: Event) -> None:
        self._view, old, end = None, self._plain, self._plain.end
        if _is_incident(event, old.start):
            self._incidents.append(event)
        if not isinstance(event, Restart):
            end = event if isinstance(event, StudyEnd) else None
        if isinstance(event, TrialStart | Report | TrialEnd):
            before = self.trials.get(event.trial, TrialView(number=event.trial, params={}))
            self.trials[event.trial] = _after(before, event)
        elif isinstance(event, FinalReport):
            _check_detections(event)
            self.finals[event.role, event.arm, event.seed] = event
        self._plain = replace(
            old,
            start=event if isinstance(event, StudyStart) else old.start,
            recommended=event if isinstance(event, Recommendation) else old.recommended,
            end=end,
            started=event.time if old.started is None else old.started,
            updated=event.time,
            num_events=old.num_events + 1,
        )


def summarise(runs: Sequence[FinalReport]) -> dict[str, Summary]:
    """Mean and sample standard deviation over seeds of every metric that all `runs` have."""
    if not runs:
        return {}
    shared = [name for name in runs[0].metrics if all(name in r.metrics for r in runs)]
    return {name: summary_of([r.metrics[name] for r in runs]) for name in shared}


def resolved_space(view: StudyView) -> SearchSpace:
    """The search space of a study from its log, also if its method has changed since; its budget is
    the one that was run, which flags may have changed.

    Raises:
        DataError: it is damaged, or of a version with other keys.
    """
    try:
        return _space(view.study)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"events.jsonl: the space of {view.study.study} is damaged or of another version "
            f"({error!r}); restore the log, or use the version that wrote it"
        ) from error


def _space(start: StudyStart) -> SearchSpace:
    plain = start.space
    budget = Budget(**plain["budget"])
    trials = start.num_trials or budget.trials
    domains, fixed = {}, {}
    for section in ("train", "decode"):
        values = plain.get(section, {}).items()
        domains[section] = {k: Domain.from_dict(v) for k, v in values if isinstance(v, dict)}
        fixed[section] = {k: v for k, v in values if not isinstance(v, dict)}
    return SearchSpace(
        name=start.study, method=plain["method"], dataset=plain["dataset"],
        policy=plain.get("policy", "simple"),
        budget=replace(budget, trials=trials),
        selection=Selection(**plain["selection"]),
        resources=Resources(**plain["resources"]), final=Final(**plain["final"]),
        train=domains["train"], train_fixed=fixed["train"],
        decode=domains["decode"], decode_fixed=fixed["decode"], points=start.points,
    )  # fmt: skip


def best_yaml(view: StudyView) -> str | None:
    """The winner as a search space with every value fixed, for `python -m ptal_ray.train`; None
    before a trial completed."""
    best = view.best_config()
    return resolved_space(view).freeze(*best).to_yaml() if best else None


def summary_of(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of one value or more."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(mean=float(np.mean(values)), sd=sd, values=tuple(values))


def _is_incident(
    event: Event, before: StudyStart | None
) -> TypeGuard[StudyStart | Restart | StudyEnd]:
    """Whether `event` is an incident; `before` is the last start."""
    if isinstance(event, StudyEnd):
        return event.state != "done"
    return isinstance(event, Restart) or (isinstance(event, StudyStart) and before is not None)


def _after(trial: TrialView, event: TrialStart | Report | TrialEnd) -> TrialView:
    """`trial` after one of its events."""
    if isinstance(event, Report):
        return trial.with_report(event)
    if isinstance(event, TrialEnd):
        return replace(
            trial, state=event.state, ended=event.time, message=event.message, crashed=event.crashed
        )
    return replace(
        trial,
        params=event.params,
        arm=trial.number if event.arm is None else event.arm,
        cell=event.cell,
        fold=event.fold,
        seed=event.seed,
        stage=event.stage,
        state="running",
        started=event.time if math.isnan(trial.started) else trial.started,
        ended=None,
        message="",
    )


def _check_detections(event: FinalReport) -> None:
    """Raises DataError if its detections are outside the study directory."""
    path = PurePath(event.detections or "")
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"events.jsonl: detections {str(path)[:80]!r} are outside the study directory; "
            "restore the log"
        )
