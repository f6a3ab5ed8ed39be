"""What runs next and what is written down: the order of a study, without Ray.

Search trials first, interrupted ones before new ones; then the reselect runs; then the test runs.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ptal_ray.errors import DivergedError, StorageError
from ptal_ray.space.space import Scalar
from ptal_ray.study.finals import FinalConfig, diverged_event
from ptal_ray.study.job import HALTS, STANDBY, Job, Result
from ptal_ray.study.retention import Retention
from ptal_ray.study.run_folder import DETECTIONS
from ptal_ray.study.study import Study, final_configs, trial_config
from ptal_ray.study.view import EventLog, StudyView, TrialView, read_events

ROLES = ("reselect", "test")
TIME_BUDGET = "time budget"
RETRIES = 2  # in a row, of a run whose process died or raised something unforeseen


class Rungs(Protocol):
    """Tells a scheduler what a trial reported that goes on as `trial_id` and was called `was`."""

    def __call__(self, trial_id: str, trial: TrialView, was: str = "") -> None: ...


class Searcher(Protocol):
    """Suggests trials; it learns from their reports and ends, as the event log has them."""

    def restore(self, trials: Sequence[TrialView]) -> None:
        """Takes the trials of an interrupted run."""

    def suggest(self, number: int) -> dict[str, Scalar] | None:
        """The parameters of trial `number`; None where all configurations were tried."""

    def report(self, number: int, step: int, value: float) -> bool:
        """Takes the objective of a trial at a report step; whether to stop it."""

    def finish(self, number: int, state: str) -> None:
        """Takes the end of a trial: "complete", "pruned" or "failed"."""

    def annotate(self, number: int, **attributes: Scalar) -> None:
        """Takes facts about a trial that are shown and not searched."""


@dataclass(kw_only=True)
class _Live:
    """A run that Tune holds: a search trial by number, or a final run."""

    job: Job
    number: int | None = None
    params: dict[str, Scalar]
    step: int = 0
    objective: float = float("nan")
    failures: int = 0


class Conductor:
    """Hands out the runs of a study by Tune's trial ids and logs what becomes of them.

    Args:
        study: what to run; its log may hold an interrupted run.
        searcher: suggests trials; brought up to the log here.
        log: of the study directory.
        replay: told of every trial of the interrupted run, so that a scheduler knows its rungs:
            under an id of its own if it ended, else under the id it goes on with.
        listen: told of every event after it is on disk.
    """

    def __init__(
        self,
        study: Study,
        searcher: Searcher,
        log: EventLog,
        replay: Rungs,
        listen: Callable[[dict[str, Any]], None],
    ) -> None:
        self.study, self._searcher, self._log = study, searcher, log
        self._replay, self._listen = replay, listen
        events = read_events(study.events)
        left = (study.time_budget_s or float("inf")) - searched_seconds(events)
        self._stop_at = time.time() + left
        view = StudyView.from_events(events)
        searcher.restore(view.trials)
        self._retention = Retention(study, view)
        self._interrupted = {t.number: t for t in view.trials if t.state == "running"}
        ended = {t.number: t for t in view.trials if t.state != "running"}
        for number, trial in ended.items():
            replay(f"ended-{number}", trial)
        open_numbers = (n for n in range(study.num_trials) if n not in ended)
        self._numbers = deque(() if view.finals else open_numbers)  # the best are chosen by then
        self._roles = deque(ROLES)
        self._finals: deque[FinalConfig] = deque()
        self._live: dict[str, _Live] = {}
        self._again: deque[tuple[str, _Live]] = deque()  # lost their process, with their last id
        self._standing_by: set[str] = set()
        self.without_process: set[str] = set()  # ids that Tune has found no place for

    @property
    def over(self) -> bool:
        """Whether everything was handed out and has ended."""
        return not (self._roles or self._finals or self._live or self._again)

    @property
    def standing_by(self) -> bool:
        """Whether any process stands by."""
        return bool(self._standing_by)

    def next_job(self, trial_id: str) -> str | None:
        """The next run as JSON, under the id Tune gives it; None where there is no more to do.

        STANDBY keeps a process while others must end before it is known what comes next, or may
        lose theirs.

        Raises:
            NoTrialFinished: the search ended and no trial reached its last report.
        """
        if self._again:
            return self._take_up(trial_id, *self._again.popleft())
        if time.time() > self._stop_at:
            self._give_up_search()
        if self._numbers and (live := self._next_trial(trial_id)):
            self._live[trial_id] = live
            return live.job.to_json()
        while not self._finals:
            if self._live:
                self._standing_by.add(trial_id)
                return STANDBY
            if not self._roles:
                return None
            self._finals.extend(self._missing(self._roles.popleft()))
        self._live[trial_id] = live = self._final(self._finals.popleft())
        return live.job.to_json()

    def expired(self, trial_id: str) -> bool:
        """Whether this must end now: the time for search trials is up, or the standing by.

        What stands by gives its place to a run that waits for one since its node was lost.
        """
        if trial_id in self._standing_by:
            starved = not self.without_process.isdisjoint(self._live)
            return starved or bool(self._again) or bool(self._finals)
        return self._live[trial_id].number is not None and time.time() > self._stop_at

    def spared(self, trial_id: str) -> bool:
        """Whether this is the trial of the defaults, which runs to its end: what is found is judged
        against it on the same videos."""
        live = self._live.get(trial_id)
        return live is not None and live.number == 0 and self.study.searcher != "grid"

    def reported(self, trial_id: str, result: Result) -> None:
        """A run reported, or failed.

        Raises:
            StorageError, DataError: its files have no place, or its data changed; the study stops
                and can be resumed.
        """
        if kind := result.get("halt"):
            raise HALTS[kind](result["failed"])
        live = self._live.get(trial_id)
        if live is None:
            return
        if note := result.get("note"):
            self._restart(live, note)
        if live.number is None or result["failed"] is not None:
            return
        if result["step"] > live.step:
            live.failures = 0  # it gets on, however often a node is lost
        live.step, live.objective = result["step"], result["objective"]
        fields = ("step", "objective", "metrics", "decode", "seconds", "to_first_step_s")
        self._write("report", trial=live.number, **{k: result[k] for k in fields})
        self._searcher.report(live.number, live.step, result["objective"])

    def ended(self, trial_id: str, result: Result, error: str = "") -> None:
        """A run ended: by itself, because Tune stopped it, or its process died or raised `error`,
        which is tried again, though not forever.

        Args:
            trial_id: Tune's id.
            result: its last result; empty where there is none.
            error: why its process ended; "" where it did not.
        """
        if trial_id in self._standing_by:
            return self._standing_by.discard(trial_id)
        live = self._live.pop(trial_id)
        failed = result.get("failed") or ""
        if error:
            live.failures += 1
            if live.failures <= RETRIES:
                self._restart(live, error)
                return self._again.append((trial_id, live))
            failed = f"failed {live.failures} times; last: {error}"
            if live.number is None:  # it says nothing about what was found; --resume tries again
                return self._restart(live, f"given up: {failed}")
        if live.number is not None:
            self._end_trial(live, live.number, failed)
        elif failed:
            self._write(**diverged_event(live.job.run, DivergedError(failed)))
        else:
            self._fetch(live.job)
            self._write(**result["event"])

    def _give_up_search(self) -> None:
        """The time for search trials is up: none begins, and those of an earlier sitting end."""
        for number in self._numbers:
            if number in self._interrupted:
                self._close_trial(number, "pruned", TIME_BUDGET)
        self._numbers.clear()

    def _end_trial(self, live: _Live, number: int, failed: str) -> None:
        state, message = "failed", failed
        if not failed:
            whole = live.step >= self.study.space.budget.max_steps
            state = "complete" if whole else "pruned"
            message = TIME_BUDGET if not whole and time.time() > self._stop_at else ""
        kept = state == "complete" and math.isfinite(live.objective)
        self._close_trial(number, state, message, live.objective if kept else None)

    def _close_trial(
        self, number: int, state: str, message: str, objective: float | None = None
    ) -> None:
        """Notes the end of a trial everywhere; one without an objective keeps no checkpoint."""
        self._write("trial_end", trial=number, state=state, message=message)
        self._searcher.finish(number, state)
        self._retention.ended(number, objective)

    def _next_trial(self, trial_id: str) -> _Live | None:
        number = self._numbers.popleft()
        asked_at = time.time()
        old = self._interrupted.get(number)
        params = old.params if old else self._searcher.suggest(number)
        if params is None:
            self._numbers.clear()  # all configurations were tried
            return None
        job = self._job(
            config=trial_config(self.study, params),
            folder=str(self.study.trial_directory(number).relative_to(self.study.directory)),
            asked_at=asked_at,
            reported_step=old.reports[-1].step if old and old.reports else 0,
        )
        live = _Live(job=job, number=number, params=params, step=job.reported_step)
        if old and old.objective is not None:
            live.objective = old.objective
        if old:
            self._replay(trial_id, old)
        self._searcher.annotate(number, ray_trial_id=trial_id)
        self._start(live, asked_at)
        return live

    def _take_up(self, trial_id: str, was: str, live: _Live) -> str:
        """Hands out a run whose process was lost, from its checkpoint where it has one."""
        self._live[trial_id] = live
        live.job = replace(live.job, asked_at=time.time(), reported_step=live.step)
        if live.number is not None:
            trials = StudyView.read(self.study.directory).trials
            self._replay(trial_id, next(t for t in trials if t.number == live.number), was)
            self._start(live, live.job.asked_at)
        return live.job.to_json()

    def _start(self, live: _Live, at: float) -> None:
        from_step = live.step if live.step and live.job.files.has_checkpoint() else 0
        self._write(
            "trial_start", time=at, trial=live.number, params=live.params, from_step=from_step
        )

    def _restart(self, live: _Live, reason: str) -> None:
        self._write("restart", run=live.job.folder, reason=reason)

    def _missing(self, role: str) -> list[FinalConfig]:
        """The final runs of `role` that the log lacks."""
        view = StudyView.read(self.study.directory)
        done = {(f.role, f.arm, f.seed) for f in view.finals}
        runs = final_configs(self.study, view, role)
        return [run for run in runs if (run.role, run.arm, run.seed) not in done]

    def _final(self, run: FinalConfig) -> _Live:
        job = self._job(
            config=run.config,
            folder=run.folder,
            asked_at=time.time(),
            final=(run.role, run.arm, run.seed),
        )
        return _Live(job=job, params={})

    def _job(self, **fields: Any) -> Job:
        study = self.study
        return Job(
            directory=str(study.directory), remote=study.remote, source=study.source,
            data_hash=study.data_hash, **fields,
        )  # fmt: skip

    def _fetch(self, job: Job) -> None:
        """Brings the detections of a final run here before its event says that they are."""
        place = job.files.place
        if place.remote and not (place / DETECTIONS).pull(job.path / DETECTIONS):
            raise StorageError(f"{place / DETECTIONS}: is gone; --resume makes it again")

    def _write(self, event: str, **fields: Any) -> None:
        fields = {"time": time.time()} | fields
        self._log.append(event, **fields)
        self._listen({"event": event} | fields)


def searched_seconds(events: Iterable[dict[str, Any]]) -> float:
    """Time that the runs of a study have spent on search trials; what a time budget counts."""
    total, began, last = 0.0, 0.0, 0.0
    for event in events:
        if event["event"] == "study":
            total += last - began
            began = last = event["time"]
        elif event["event"] in ("trial_start", "report", "trial_end"):
            last = event["time"]
    return total + last - began
