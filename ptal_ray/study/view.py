"""What readers see of a study: its trials, its final runs and the best of them, from its events.

MLflow, reports, resume and the live table all read the same log (`events.py`) through this view.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np

from ptal_ray.errors import DataError
from ptal_ray.space.domain import Domain
from ptal_ray.space.space import Budget, Final, Resources, Scalar, SearchSpace, Selection
from ptal_ray.study.events import Event, EventLog, dumps, loads, read_events

__all__ = [
    "EventLog",
    "FinalRun",
    "Report",
    "StudyView",
    "Summary",
    "TrialView",
    "best_yaml",
    "dumps",
    "loads",
    "read_events",
    "resolved_space",
    "summarise",
    "summary_of",
]

STATES = ("running", "complete", "pruned", "failed")
_KINDS = (
    "study", "trial_start", "report", "trial_end", "recommended", "final_report", "study_end"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report of a trial; `seconds` of training and scoring so far, `to_first_step_s` from the
    start of the trial to its first step (None where it was not measured), `settings` the objective
    of every decode setting, the default first (empty in logs of earlier versions), `losses` the
    points [step, value] of each term since the report before."""

    time: float
    step: int
    objective: float
    metrics: dict[str, float]
    decode: dict[str, Scalar]
    seconds: float
    to_first_step_s: float | None = None
    settings: tuple[float, ...] = ()
    losses: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """One trial.

    Args:
        number: its number in the study.
        params: searched train parameters.
        arm: number of its configuration; trials of one arm differ in `cell`.
        cell: which of the runs of its arm.
        fold: part of the training split it is scored on; None for the one of the space.
        seed: of the run; None in logs of earlier versions.
        stage: why it runs: "search", or "screen", "race" and "gate" of a race.
        state: running, complete, pruned or failed; one that was killed stays running.
        started, ended: seconds since 1970.
        message: why it failed.
        reports: ascending steps, one a step: what was reported last.
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
    reports: tuple[Report, ...] = ()

    @property
    def objective(self) -> float | None:
        """The objective of the last report."""
        return self.reports[-1].objective if self.reports else None

    @property
    def finite(self) -> bool:
        """Whether the last report has a finite objective."""
        return self.objective is not None and math.isfinite(self.objective)

    def with_report(self, report: Report) -> TrialView:
        """This trial and one more report, which replaces an earlier one of the same step."""
        by_step = {r.step: r for r in self.reports} | {report.step: report}
        return replace(self, reports=tuple(by_step[s] for s in sorted(by_step)))


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """One training run after the search: `arm` is a configuration, `role` is "reselect" (scored on
    the selection fold), "test", "fold" (scored on fold `seed`) or "deploy" (trained on all videos
    and not scored); `train` and `decode` hold every parameter, `detections` a path relative to the
    study directory. `seed` is the repeat, from 0 on, `run_seed` the real seed (None
    in logs of earlier versions). A run that diverged has no metrics and a message."""

    role: str
    arm: str
    seed: int
    train: dict[str, Scalar]
    decode: dict[str, Scalar]
    step: int
    metrics: dict[str, float]
    detections: str
    time: float
    message: str = ""
    run_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric over seeds; `sd` is the sample standard deviation, None for a single seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study as its events tell it.

    Args:
        study: the newest "study" event; empty before the first.
        end: the "study_end" event, or None while the study runs (or runs again).
        recommended: the "recommended" event, or None before the search ended.
        trials: by number.
        finals: by role, arm, seed; the last of each.
        started, updated: time of the first and of the last event; None without events.
        num_events: events read.
        incidents: what did not go smoothly, oldest first: "restart" events, "study_end" events of
            interruptions, and the "study" events that continued.
    """

    study: Event = field(default_factory=dict)
    end: Event | None = None
    recommended: Event | None = None
    trials: tuple[TrialView, ...] = ()
    finals: tuple[FinalRun, ...] = ()
    started: float | None = None
    updated: float | None = None
    num_events: int = 0
    incidents: tuple[Event, ...] = ()

    def extend(self, events: Iterable[Event]) -> StudyView:
        """The view after `events`, oldest first; kinds not named here are passed over."""
        study, end, count = self.study, self.end, self.num_events
        recommended = self.recommended
        started, updated = self.started, self.updated
        trials = {t.number: t for t in self.trials}
        finals = {(f.role, f.arm, f.seed): f for f in self.finals}
        incidents = list(self.incidents)
        for event in events:
            count += 1
            updated = event["time"]
            started = updated if started is None else started
            kind = event["event"]
            stopped = kind == "study_end" and event["state"] != "done"
            if kind == "restart" or stopped or (kind == "study" and study):
                incidents.append(event)
            if kind in _KINDS:
                end = event if kind == "study_end" else None
            if kind == "study":
                study = event
            elif kind == "recommended":
                recommended = event
            elif kind in ("trial_start", "report", "trial_end"):
                number = int(event["trial"])
                before = trials.get(number, TrialView(number=number, params={}))
                trials[number] = _after(before, event)
            elif kind == "final_report":
                run = _final(event)
                finals[run.role, run.arm, run.seed] = run
        return StudyView(
            study=study,
            end=end,
            recommended=recommended,
            started=started,
            updated=updated,
            num_events=count,
            incidents=tuple(incidents),
            trials=tuple(trials[n] for n in sorted(trials)),
            finals=tuple(finals[k] for k in sorted(finals)),
        )

    @staticmethod
    def from_events(events: Iterable[Event]) -> StudyView:
        """The view of a whole log."""
        return StudyView().extend(events)

    @staticmethod
    def read(study_dir: str | Path) -> StudyView:
        """The view of a study directory; raises as `read_events`."""
        return StudyView.from_events(read_events(Path(study_dir) / "events.jsonl"))

    @property
    def best(self) -> TrialView | None:
        """The trial of the recommended configuration; before one is recommended, the complete trial
        with the highest last objective, the first of equal ones. None where the defaults are."""
        if self.recommended:
            number = self.recommended["trial"]
            return next((t for t in self.trials if t.number == number), None)
        done = [t for t in self.trials if t.state == "complete" and t.finite]
        return max(done, key=lambda t: (t.objective, -t.number), default=None)

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state, all four named."""
        states = Counter(t.state for t in self.trials)
        return {state: states[state] for state in STATES}

    def runs(self, role: str, arm: str) -> tuple[FinalRun, ...]:
        """The final runs of one arm, by seed."""
        return tuple(f for f in self.finals if (f.role, f.arm) == (role, arm))

    @property
    def has_test(self) -> bool:
        """Whether the data has a test split, as all data of earlier versions had."""
        return bool(self.study.get("test_videos", 1))

    def deployable(self) -> tuple[FinalRun, ...]:
        """The runs of what is recommended on the whole training split, which leave models: those
        of arm "best", or of "default" alone."""
        role = "test" if self.has_test else "deploy"
        return self.runs(role, "best") or self.runs(role, "default")

    def arms(self, role: str) -> tuple[str, ...]:
        """Arms that have final runs of `role`: "best" first, "default" last."""
        order = {"best": 0, "default": 2}
        found = {f.arm for f in self.finals if f.role == role}
        return tuple(sorted(found, key=lambda arm: (order.get(arm, 1), arm)))

    def best_config(self) -> tuple[dict[str, Scalar], dict[str, Scalar]] | None:
        """All train and all decode parameters of the winner, or None before a trial completed.

        The winner is what is recommended; in logs of earlier versions what was tested or what the
        study ended with; else the best trial.
        """
        defaults = self.study.get("defaults", {"train": {}, "decode": {}})
        if self.recommended:
            found = self.recommended["params"], self.recommended["decode"]
        elif tested := self.runs("test", "best"):
            return tested[0].train, tested[0].decode
        elif self.end and self.end.get("best_params"):
            found = self.end["best_params"], self.end.get("best_decode", {})
        elif self.best:
            found = self.best.params, self.best.reports[-1].decode
        else:
            return None
        return defaults["train"] | found[0], defaults["decode"] | found[1]


def summarise(runs: Sequence[FinalRun]) -> dict[str, Summary]:
    """Mean and sample standard deviation over seeds of every metric that all `runs` have."""
    if not runs:
        return {}
    shared = [name for name in runs[0].metrics if all(name in r.metrics for r in runs)]
    return {name: summary_of([r.metrics[name] for r in runs]) for name in shared}


def resolved_space(view: StudyView) -> SearchSpace:
    """The search space of a study as its log tells it, whatever its method has become since."""
    plain = view.study["space"]
    domains, fixed = {}, {}
    for section in ("train", "decode"):
        values = plain.get(section, {}).items()
        domains[section] = {k: Domain.from_dict(v) for k, v in values if isinstance(v, dict)}
        fixed[section] = {k: v for k, v in values if not isinstance(v, dict)}
    return SearchSpace(
        name=view.study["study"], method=plain["method"], dataset=plain["dataset"],
        policy=plain.get("policy", "simple"),
        budget=Budget(**plain["budget"]), selection=Selection(**plain["selection"]),
        resources=Resources(**plain["resources"]), final=Final(**plain["final"]),
        train=domains["train"], train_fixed=fixed["train"],
        decode=domains["decode"], decode_fixed=fixed["decode"],
    )  # fmt: skip


def best_yaml(view: StudyView) -> str | None:
    """The winner as a search space with every value fixed, as `python -m ptal_ray.train` reads it;
    None before a trial completed."""
    best = view.best_config()
    return resolved_space(view).freeze(*best).to_yaml() if best else None


def summary_of(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation of one value or more."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(mean=float(np.mean(values)), sd=sd, values=tuple(values))


def _after(trial: TrialView, event: Event) -> TrialView:
    """`trial` after one of its events."""
    if event["event"] == "trial_start":
        first = event["time"] if math.isnan(trial.started) else trial.started
        return replace(
            trial,
            params=event["params"],
            arm=event.get("arm", trial.number),
            cell=event.get("cell", 0),
            fold=event.get("fold"),
            seed=event.get("seed"),
            stage=event.get("stage", "search"),
            state="running",
            started=first,
            ended=None,
            message="",
        )
    if event["event"] == "trial_end":
        return replace(
            trial, state=event["state"], ended=event["time"], message=event.get("message", "")
        )
    return trial.with_report(
        Report(
            time=event["time"],
            step=int(event["step"]),
            objective=event["objective"],
            metrics=event["metrics"],
            decode=event["decode"],
            seconds=event["seconds"],
            to_first_step_s=event.get("to_first_step_s"),
            settings=tuple(event.get("settings", ())),
            losses=event.get("losses", {}),
        )
    )


def _final(event: Event) -> FinalRun:
    detections = event.get("detections") or ""
    if PurePath(detections).is_absolute() or ".." in PurePath(detections).parts:
        raise DataError(
            f"events.jsonl: detections {detections[:80]!r} lie elsewhere; restore the log, whose "
            "paths stay in the study directory"
        )
    return FinalRun(
        role=event["role"],
        arm=event["arm"],
        seed=int(event["seed"]),
        train=event["params"],
        decode=event["decode"],
        step=int(event["step"]),
        metrics=event["metrics"],
        detections=detections,
        time=event["time"],
        message=event.get("message", ""),
        run_seed=event.get("run_seed"),
    )
