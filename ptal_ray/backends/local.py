"""A study in this process, without Ray: one trial after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

from ptal_ray.errors import DivergedError, NoTrialFinished
from ptal_ray.policy.random_searcher import Searcher
from ptal_ray.space.space import Scalar
from ptal_ray.study.events import EventLog
from ptal_ray.study.finals import diverged_event, final_event
from ptal_ray.study.run_folder import MODEL
from ptal_ray.study.study import Study, end_event, final_configs, study_event, trial_config
from ptal_ray.study.view import StudyView
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import write_scores
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial


def run_local(
    study: Study,
    searcher: Searcher,
    log: EventLog,
    trial_factory: Callable[[TrialConfig, str], Trial] = start,
    device: str = "cpu",
) -> StudyView:
    """Runs a study in this process, one trial after the other, or continues it.

    Args:
        study: the study; its log may hold an interrupted run.
        searcher: suggests and stops trials.
        log: of the study directory.
        trial_factory: makes a trial from its configuration and device.
        device: "cpu", "cuda" or "cuda:k".

    Raises:
        NoTrialFinished: no trial reached its last report.
    """
    stop_at = time.time() + (study.time_budget_s or float("inf"))
    log.append(**study_event(study))
    known = {t.number: t for t in StudyView.read(study.directory).trials}
    try:
        searcher.restore(tuple(known.values()))
        for number in range(study.num_trials):
            old = known.get(number)
            if old and old.state != "running":
                continue
            if time.time() > stop_at:
                break
            params = old.params if old else searcher.suggest(number)
            if params is None:
                break
            _run_trial(study, number, params, searcher, log, trial_factory, device, stop_at)
        for role in ("reselect", "test"):
            _run_finals(study, role, log, trial_factory, device)
    except (KeyboardInterrupt, NoTrialFinished) as error:
        state = "done" if isinstance(error, NoTrialFinished) else "interrupted"
        view = StudyView.read(study.directory)
        log.append(**end_event(study, view, state, str(error)))
        raise
    log.append(**end_event(study, StudyView.read(study.directory), "done"))
    return StudyView.read(study.directory)


def _run_trial(
    study: Study,
    number: int,
    params: dict[str, Scalar],
    searcher: Searcher,
    log: EventLog,
    trial_factory: Callable[[TrialConfig, str], Trial],
    device: str,
    stop_at: float,
) -> None:
    began = time.time()
    checkpoint = study.trial_directory(number) / "checkpoint.pt"
    state, message = "complete", ""
    start = {"time": began, "trial": number, "params": params}
    try:
        trial = trial_factory(trial_config(study, params), device)  # trains earlier stages
    except DivergedError as error:
        log.append("trial_start", **start, from_step=0)
        _end_trial(number, "failed", str(error), searcher, log)
        return
    if checkpoint.exists():
        trial.load(checkpoint)
    log.append("trial_start", **start, from_step=trial.step)
    try:
        while not trial.done:
            report = trial.advance()
            waited = trial.first_step_at - began if trial.first_step_at else None
            log.append("report", trial=number, to_first_step_s=waited, **asdict(report))
            trial.save(checkpoint)
            stop = searcher.report(number, report.step, report.objective)
            if (stop or time.time() > stop_at) and not trial.done:
                state, message = "pruned", "" if stop else "time budget"
                break
        if trial.scores:  # none where it was killed after its last report
            write_scores(checkpoint.with_name("scores.npz"), trial.scores)
    except DivergedError as error:
        state, message = "failed", str(error)
    _end_trial(number, state, message, searcher, log)
    if state != "complete":
        checkpoint.unlink(missing_ok=True)


def _end_trial(number: int, state: str, message: str, searcher: Searcher, log: EventLog) -> None:
    log.append("trial_end", trial=number, state=state, message=message)
    searcher.finish(number, state)


def _run_finals(
    study: Study,
    role: str,
    log: EventLog,
    trial_factory: Callable[[TrialConfig, str], Trial],
    device: str,
) -> None:
    view = StudyView.read(study.directory)
    done = {(f.role, f.arm, f.seed) for f in view.finals}
    for run in final_configs(study, view, role):
        if (run.role, run.arm, run.seed) in done:
            continue
        try:
            trial = trial_factory(run.config, device)
            while not trial.done:
                report = trial.advance()
            if run.deployable:
                trial.save_model(study.directory / run.folder / MODEL, report.decode)
            event = final_event(study.directory, run, report, trial.detections)
        except DivergedError as error:
            event = diverged_event(run, error)
        log.append(**event)
