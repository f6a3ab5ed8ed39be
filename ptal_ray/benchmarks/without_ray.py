"""The cost of the driver of a search without Ray: the conductor, its policy, log and lines, in a
study whose trials do not train and whose processes are dictionaries."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ptal_ray.policy.policies import make_policy
from ptal_ray.reporting.progress import Progress
from ptal_ray.study.conductor import Conductor
from ptal_ray.study.events import EventLog
from ptal_ray.study.job import STANDBY
from ptal_ray.study.results import Reported
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import Study


class ConductorRun:
    """A conductor, and trials that report at once.

    Args:
        study: its directory exists and is empty.
        concurrent: trials at a time.
    """

    def __init__(self, study: Study, concurrent: int) -> None:
        log = EventLog(study.events)
        log.append(study_event(study))
        progress = Progress(study, Console(file=io.StringIO()), live=False, quiet=False)
        self.conductor = Conductor(study, make_policy(study), log, progress.event)
        self.reports = 0
        self._concurrent, self._begun = concurrent, 0
        self._live: dict[str, Iterator[Reported] | None] = {}  # None for a waiting process

    def run(self, pause_s: float = 0.0) -> None:
        """Run the whole study, one report of every trial in turn.

        Args:
            pause_s: seconds before each report of a trial.
        """
        while not self.conductor.over:
            self._fill()
            time.sleep(pause_s)
            for id in list(self._live):
                self._advance(id)

    def _fill(self) -> None:
        while len(self._live) < self._concurrent:
            id = f"{self._begun:05d}"
            if (text := self.conductor.next_job(id)) is None:
                return
            self._begun += 1
            self._live[id] = None if text == STANDBY else _results(json.loads(text))

    def _advance(self, id: str) -> None:
        results, result = self._live[id], None
        if results is not None:
            result = next(results)
            self.conductor.reported(id, result)
            self.reports += 1
        if self.conductor.expired(id) or (result and result.done):
            self.conductor.ended(id, result)
            del self._live[id]


def _results(job: dict[str, Any]) -> Iterator[Reported]:
    from ptal_ray.benchmarks.dummy import made_report  # Ray is slow to import

    plan = json.loads(job["config"])
    return (made_report(job, plan, step) for step in plan["report_steps"])


def profile_conductor(trials: int, concurrent: int, policy: str) -> dict[str, Any]:
    """CPU milliseconds per report of the driver without Ray and MLflow; arguments as for
    `profile_driver`."""
    from ptal_ray.benchmarks.driver import driven_study

    with tempfile.TemporaryDirectory() as folder:
        run = ConductorRun(driven_study(Path(folder), trials, concurrent, policy), concurrent)
        began = time.process_time()
        run.run()
        spent = time.process_time() - began
        return {
            "trials": len(run.conductor.view.trials), "concurrent": concurrent,
            "reports": run.reports, "CPU ms a report": spent / run.reports * 1e3,
        }  # fmt: skip
