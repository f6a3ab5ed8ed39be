"""The loop over the runs of a study: chooses the next run and logs all results.

Search trials come first, interrupted ones before new ones. Then the best trials are trained again,
if the policy requires it. Then follow the recommendation and the test runs, or without a test split
the runs of `no_test_split.py`. A backend requests jobs and returns results; it decides where they
run.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ptal_ray.errors import NoTrialFinished, StorageError
from ptal_ray.study.event_types import (
    RESELECT,
    TEST,
    Event,
    Report,
    Restart,
    StudyStart,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.finals import final_jobs, why_none_finished
from ptal_ray.study.job import STANDBY, Job, diverged_event, study_job
from ptal_ray.study.no_test_split import last_roles, untested_jobs
from ptal_ray.study.policy import Policy, Suggestion
from ptal_ray.study.results import HALTS, MOST_ATTEMPTS, Failed, Reported, Result
from ptal_ray.study.retention import Retention
from ptal_ray.study.run_folder import DETECTIONS
from ptal_ray.study.study import Study, trial_config
from ptal_ray.study.view import IncrementalView, StudyView, TrialView

RECOMMEND = "recommend"  # comes between two roles
TIME_BUDGET = "time budget"


@dataclass(kw_only=True)
class _Live:
    """A run that the backend has: a search trial by number, or a final run."""

    job: Job
    number: int | None = None
    suggestion: Suggestion | None = None
    step: int = 0
    objective: float = float("nan")
    settings: tuple[float, ...] = ()
    failures: int = 0
    stopped: bool = False  # by the policy


class Conductor:
    """Assigns the runs of a study to ids of the backend and logs their results.

    Args:
        study: what to run; its log may hold an interrupted run.
        policy: suggests trials; it is restored from the log here.
        log: of the study directory.
        listen: called with every event after it is on disk.
    """

    def __init__(
        self,
        study: Study,
        policy: Policy,
        log: EventLog,
        listen: Callable[[Event], None],
    ) -> None:
        self.study, self._policy, self._log, self._listen = study, policy, log, listen
        events = read_events(study.events)
        left = (study.time_budget_s or float("inf")) - searched_seconds(events)
        self._stop_at = time.time() + left
        self._growing = IncrementalView(StudyView.from_events(events))
        self._stopped = policy.restore(self.view)
        self._retention = Retention(study, self.view)
        self._interrupted = deque(t for t in self.view.trials if t.state == "running")
        self._next_number = 1 + max((t.number for t in self.view.trials), default=-1)
        self._searching = not (self.view.finals or self.view.recommended)
        if not self._searching:
            self._interrupted.clear()
        first = (RESELECT, RECOMMEND) if policy.reselects else (RECOMMEND,)
        self._roles = deque((*first, *last_roles(study)))
        self._finals: deque[Job] = deque()
        self._live: dict[str, _Live] = {}
        self._again: deque[_Live] = deque()  # lost their process
        self._num_ended = 0
        self._standing_by: dict[str, int] = {}  # number of ended runs when each was told to wait
        self.without_process: set[str] = set()  # ids without resources in the backend

    @property
    def view(self) -> StudyView:
        """The study after all events so far."""
        return self._growing.view

    @property
    def over(self) -> bool:
        """Whether all runs have ended."""
        return not (self._searching or self._roles or self._finals or self._live or self._again)

    @property
    def standing_by(self) -> bool:
        """Whether any process waits for a job."""
        return bool(self._standing_by)

    def next_job(self, trial_id: str) -> str | None:
        """The next run as JSON, under the id that the backend gives it; None if all are assigned.

        STANDBY keeps a process while the next job depends on the end of other runs, or while
        another run may lose its process.

        Raises:
            NoTrialFinished: the search ended and no trial reached its last report.
        """
        if self._again:
            return self._take_up(trial_id, self._again.popleft())
        live = self._next_trial(trial_id) if self._searching else None
        while live is None and not self._finals:
            if self._live:
                self._standing_by[trial_id] = self._num_ended
                return STANDBY
            self._searching = False
            if not self._roles:
                return None
            if (role := self._roles.popleft()) == RECOMMEND:
                self._recommend()
            else:
                self._finals.extend(self._missing(role))
        if live is None:
            live = _Live(job=replace(self._finals.popleft(), asked_at=time.time()))
        self._live[trial_id] = live
        return live.job.to_json()

    def expired(self, trial_id: str) -> bool:
        """Whether this run must end now: its time is over, or its process need not wait.

        A waiting process releases its resources for a run that lost its node and has none.
        """
        if trial_id in self._standing_by:
            starved = not self.without_process.isdisjoint(self._live)
            return (
                starved
                or bool(self._again)
                or bool(self._finals)
                or (self._searching and self._num_ended > self._standing_by[trial_id])
            )
        live = self._live.get(trial_id)
        if live is None or live.number is None:
            return False
        return live.stopped or time.time() > self._stop_at

    def reported(self, trial_id: str, result: Result) -> None:
        """Take a report or a failure of a run; `expired` then tells whether it must stop.

        Raises:
            StorageError, DataError: its files cannot be stored, or its data changed; the study
                stops and can be resumed.
        """
        if isinstance(result, Failed) and result.halt:
            raise HALTS[result.halt](result.message)
        live = self._live.get(trial_id)
        if live is None:
            return
        if note := result.note:
            self._restart(live, note)
        if live.number is None or not isinstance(result, Reported):
            return
        if result.step > live.step:
            live.failures = 0  # it makes progress, however often a node is lost
        live.step, live.objective = result.step, result.objective
        live.settings = result.settings
        self._write(result.of_trial(live.number))
        live.stopped = self._policy.report(live.number, live.step, live.objective)

    def ended(self, trial_id: str, result: Result | None, error: str = "") -> None:
        """Take the end of a run: it finished, was stopped, or its process died or raised `error`.
        In the last case it starts again, up to `MOST_ATTEMPTS` starts in a row.

        Args:
            trial_id: id of the backend.
            result: its last result; None without one.
            error: why its process ended; "" if it did not.
        """
        if trial_id in self._standing_by:
            del self._standing_by[trial_id]
            return
        live = self._live.pop(trial_id)
        self._num_ended += 1
        failed = result.message if isinstance(result, Failed) else ""
        crashed = isinstance(result, Failed) and result.crashed
        if error:
            live.failures += 1
            if live.failures < MOST_ATTEMPTS:
                self._restart(live, error)
                return self._again.append(live)
            failed, crashed = f"failed {live.failures} times; last: {error}", True
        if crashed and live.number is None:  # nothing is known of it; --resume tries again
            return self._restart(live, failed, again=False)
        if live.number is not None:
            self._end_trial(live, live.number, failed, crashed)
        elif failed:
            self._write(diverged_event(live.job, failed))
        else:
            assert isinstance(result, Reported) and result.event is not None
            self._fetch(live.job)
            self._write(replace(result.event, time=time.time()))

    def _end_trial(self, live: _Live, number: int, failed: str, crashed: bool) -> None:
        state, message = "failed", failed
        if not failed:
            whole = live.step >= self.study.space.budget.max_steps
            state = "complete" if whole else "pruned"
            late = not whole and not live.stopped and time.time() > self._stop_at
            message = TIME_BUDGET if late else ""
        kept = state == "complete" and math.isfinite(live.objective)
        end = TrialEnd(trial=number, state=state, message=message, crashed=crashed)
        self._close_trial(live, end, live.objective if kept else None)

    def _close_trial(self, live: _Live, end: TrialEnd, objective: float | None = None) -> None:
        """Record the end of a trial; a trial without an objective keeps no checkpoint."""
        self._write(end)
        self._policy.finish(end, live.settings, live.step)
        self._retention.ended(end.trial, objective)

    def _next_trial(self, trial_id: str) -> _Live | None:
        """An interrupted trial, or a new one from the policy; None for neither now."""
        while self._interrupted:
            live = self._continued(self._interrupted.popleft())
            assert live.number is not None
            stopped = live.number in self._stopped
            if time.time() <= self._stop_at and not stopped:
                return self._begin(trial_id, live)
            message = "" if stopped else TIME_BUDGET
            self._close_trial(live, TrialEnd(trial=live.number, state="pruned", message=message))
        share = self._spent()
        self._policy.spend(share)
        if share >= 1:
            return None
        asked_at = time.time()
        suggestion = self._policy.suggest(self._next_number)
        if suggestion is None:
            return None
        number, self._next_number = self._next_number, self._next_number + 1
        job = self._trial_job(number, suggestion, asked_at)
        return self._begin(trial_id, _Live(job=job, number=number, suggestion=suggestion))

    def _begin(self, trial_id: str, live: _Live) -> _Live:
        assert live.number is not None
        self._policy.annotate(live.number, ray_trial_id=trial_id)
        self._start(live, live.job.asked_at)
        return live

    def _continued(self, trial: TrialView) -> _Live:
        """A trial of an interrupted run, continued from its last report."""
        suggestion = Suggestion(
            params=trial.params, arm=trial.arm, cell=trial.cell, fold=trial.fold, stage=trial.stage,
            seed=self.study.seed if trial.seed is None else trial.seed,
        )  # fmt: skip
        job = self._trial_job(trial.number, suggestion, time.time(), reported_step=trial.step)
        live = _Live(job=job, number=trial.number, suggestion=suggestion, step=trial.step)
        if trial.reports:
            live.objective, live.settings = trial.reports[-1].objective, trial.reports[-1].settings
        return live

    def _trial_job(self, number: int, suggestion: Suggestion, asked_at: float, **more: Any) -> Job:
        params, fold, seed = suggestion.params, suggestion.fold, suggestion.seed
        config = trial_config(self.study, params, fold=fold, seed=seed)
        folder = str(self.study.trial_directory(number).relative_to(self.study.directory))
        return replace(study_job(self.study, config, folder), asked_at=asked_at, **more)

    def _spent(self) -> float:
        """The fraction of the time, or of the GPU hours, of the search that is used."""
        study, shares = self.study, [0.0]
        if study.time_budget_s:
            shares.append(1 - (self._stop_at - time.time()) / study.time_budget_s)
        if study.gpu_hours:
            trials = self._growing.trials.values()
            used = sum(t.reports[-1].seconds for t in trials if t.reports)
            gpus = study.space.resources.workers * study.space.resources.gpus_per_worker
            shares.append(used * gpus / 3600 / study.gpu_hours)
        return max(shares)

    def _recommend(self) -> None:
        """Log the recommendation of the search, once.

        Raises:
            NoTrialFinished: no trial reached its last report.
        """
        if self.view.recommended:
            return
        found = self._policy.recommend(self.view)
        if found is None:
            raise NoTrialFinished(why_none_finished(self.study, self.view))
        self._write(found)

    def _take_up(self, trial_id: str, live: _Live) -> str:
        """Assign a run again whose process was lost, from its checkpoint if it has one."""
        self._live[trial_id] = live
        live.job = replace(live.job, asked_at=time.time(), reported_step=live.step)
        if live.number is not None:
            self._start(live, live.job.asked_at)
        return live.job.to_json()

    def _start(self, live: _Live, at: float) -> None:
        from_step = live.step if live.step and live.job.files.has_checkpoint() else 0
        assert live.suggestion is not None and live.number is not None
        told = asdict(live.suggestion)
        self._write(TrialStart(time=at, trial=live.number, **told, from_step=from_step))

    def _restart(self, live: _Live, reason: str, again: bool = True) -> None:
        self._write(Restart(run=live.job.folder, reason=reason, again=again))

    def _missing(self, role: str) -> list[Job]:
        """The final runs of `role` that are not in the log."""
        done = {(f.role, f.arm, f.seed) for f in self.view.finals}
        jobs = final_jobs if role in (RESELECT, TEST) else untested_jobs
        found = jobs(self.study, self.view, role)
        return [job for job in found if (job.role, job.arm, job.repeat) not in done]

    def _fetch(self, job: Job) -> None:
        """Copy the detections of a final run to this machine before its event is logged."""
        place = job.files.place
        if place.remote and not (place / DETECTIONS).pull(job.path / DETECTIONS):
            raise StorageError(f"{place / DETECTIONS}: does not exist; --resume writes it again")

    def _write(self, event: Event) -> None:
        self._log.append(event)
        self._growing.take(event)
        self._listen(event)


def searched_seconds(events: Iterable[Event]) -> float:
    """Time that the runs of a study have spent on search trials, which counts for a time budget."""
    total, began, last = 0.0, 0.0, 0.0
    for event in events:
        if isinstance(event, StudyStart):
            total += last - began
            began = last = event.time
        elif isinstance(event, TrialStart | Report | TrialEnd):
            last = event.time
    return total + last - began
