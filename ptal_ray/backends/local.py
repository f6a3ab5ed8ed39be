"""A study in this process, without Ray: one run after the other."""

from __future__ import annotations

from collections.abc import Callable

from ptal_ray.study.conductor import Conductor
from ptal_ray.study.event_types import Event
from ptal_ray.study.events import EventLog
from ptal_ray.study.job import STANDBY, Job, JobRun
from ptal_ray.study.policy import Policy
from ptal_ray.study.results import Result
from ptal_ray.study.start_end import locked_study, recorded
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView

RUN = "local"  # the id of the only run at a time


def run_local(
    study: Study,
    policy: Policy,
    device: str = "cpu",
    listen: Callable[[Event], None] = lambda event: None,
) -> StudyView:
    """Run a study in this process, or continue it, to its end.

    Args:
        study: the study; its log may hold an interrupted run.
        policy: suggests and stops trials.
        device: "cpu", "cuda" or "cuda:k".
        listen: called with every new event after it is on disk.

    Raises:
        ConfigError: another process runs this study.
        NoTrialFinished: no trial reached its last report.
        StorageError, DataError: its files do not fit, or its data changed; it can be resumed.
    """
    with locked_study(study.directory):
        log = EventLog(study.events)
        with recorded(study, log, listen):
            _run(Conductor(study, policy, log, listen), device)
    return StudyView.read(study.directory)


def _run(conductor: Conductor, device: str) -> None:
    while text := conductor.next_job(RUN):
        assert text != STANDBY, "nothing else runs"
        run, error = JobRun(Job.from_json(text), device), ""
        result: Result | None = None
        try:
            while result is None or not result.done:
                result = run.advance()
                conductor.reported(RUN, result)
                if conductor.expired(RUN):
                    break
        except RuntimeError as failure:  # any error of torch
            result, error = None, f"{type(failure).__name__}: {failure}"
        run.job.files.leave()
        conductor.ended(RUN, result, error)
