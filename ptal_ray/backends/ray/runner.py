"""A study under Ray Tune: Tune manages the processes, the conductor assigns their runs."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ptal_ray.backends.ray.cluster import cluster, nodes, trials_at_once
from ptal_ray.backends.ray.inspection import inspect_nodes
from ptal_ray.backends.ray.private import pass_no_aws_keys, without_state_of_tune
from ptal_ray.backends.ray.trainable import device, trial_process
from ptal_ray.backends.ray.workers import standing_workers
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import full_storage_named
from ptal_ray.policy.policies import make_policy
from ptal_ray.study.conductor import Conductor
from ptal_ray.study.event_types import Event
from ptal_ray.study.events import EventLog
from ptal_ray.study.results import result_of
from ptal_ray.study.start_end import locked_study, recorded
from ptal_ray.study.study import Study, write_study
from ptal_ray.study.view import StudyView

SCRATCH = ".ray"
PATIENCE_S = 60.0  # without a report, until a check whether any trial runs; then twice as long

_LOG = logging.getLogger(__name__)

Listener = Callable[[Event], None]


def run_study(
    study: Study,
    *,
    address: str | None = None,
    verbose: bool = False,
    listen: Listener = lambda event: None,
    interrupted: Callable[[], bool] = lambda: False,
    ready: Callable[[], None] = lambda: None,
    trainable: Any = None,
) -> StudyView:
    """Run a study with Ray, or continue it, to its end.

    Args:
        study: the study; its directory is absolute.
        address: of a Ray cluster, or None for only this machine.
        verbose: whether to show the output of Ray and of the trials.
        listen: called with every new event after it is on disk.
        interrupted: called ten times per second; once it returns True, everything is stopped.
        ready: called when Ray runs, before files of the study are written.
        trainable: runs the jobs; None for the one that trains.

    Raises:
        ConfigError: no trial fits the cluster, or another process runs this study.
        DataError: the data is damaged, or changed while the study ran.
        NoTrialFinished: no trial reached its last report.
        StorageError: its files do not fit; everything is stopped and can be resumed.
        KeyboardInterrupt: it was interrupted; everything is stopped and logged, and can be resumed.
    """
    with (
        locked_study(study.directory),
        ThreadPoolExecutor(1) as beside,  # reading takes as long as the start of Ray
    ):
        write_study(study)  # with the settings that a resume may change
        whole = beside.submit(FeatureStore.open(study.store).verify)
        with cluster(address, with_train=study.space.resources.workers > 1, verbose=verbose):
            whole.result()
            num = trials_at_once(study, nodes())
            if address:
                inspect_nodes(study)
            ready()
            log = EventLog(study.events)
            try:
                with recorded(study, log, listen), full_storage_named(study.directory):
                    _tune(study, log, num, listen, interrupted, trainable)
            finally:
                shutil.rmtree(study.directory / SCRATCH, ignore_errors=True)
    return StudyView.read(study.directory)


def _tune(
    study: Study,
    log: EventLog,
    num: int,
    listen: Listener,
    interrupted: Callable[[], bool],
    trainable: Any,
) -> None:
    conductor = Conductor(study, make_policy(study), log, listen)
    bridge = _Bridge(conductor, interrupted)
    resources = study.space.resources
    scratch = str(study.directory / SCRATCH)
    pass_no_aws_keys()
    if trainable is None:
        trainable = standing_workers() if resources.workers > 1 else trial_process(resources)
    tuner = tune.Tuner(
        trainable,
        param_space={
            "device": device(resources),
            "threads": resources.cpus_per_worker,
            "resources": asdict(resources),
            "scratch": scratch,
        },
        tune_config=tune.TuneConfig(
            search_alg=_Suggestions(bridge),
            scheduler=FIFOScheduler(),  # type: ignore[no-untyped-call]
            num_samples=-1,
            max_concurrent_trials=num,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.trial_id),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            callbacks=[_Log(bridge)],
            stop=_Reports(bridge),
            failure_config=tune.FailureConfig(max_failures=0),  # the conductor retries
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
            verbose=0,
        ),
    )
    with suppress(_Leave), without_state_of_tune():
        tuner.fit()
    if bridge.error is not None:
        raise bridge.error


class _Leave(BaseException):
    """Ends Tune's loop at once; the shutdown of Ray then ends all processes."""


class _Bridge:
    """Connects Tune's callbacks with the conductor; keeps its exception."""

    def __init__(self, conductor: Conductor, interrupted: Callable[[], bool]) -> None:
        self.conductor, self._interrupted = conductor, interrupted
        self.error: BaseException | None = None

    def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the conductor; Tune would wrap or ignore its exceptions."""
        try:
            return method(*arguments)
        except BaseException as error:
            self.error = error
            raise _Leave from error

    def check(self) -> None:
        """End Tune's loop when all runs have ended or the study was interrupted."""
        if self._interrupted():
            self.error = KeyboardInterrupt()
        if self.error is not None or self.conductor.over:
            raise _Leave


class _Stateless:
    """Has no state: Tune pickles its parts into its experiment state, which is not used."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class _Suggestions(_Stateless, Searcher):
    """Tune's view of the conductor as a searcher."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__(metric="objective", mode="max")
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        """The next job of the study as a configuration of Ray Tune; None if there is none now."""
        job = self._bridge.call(self._bridge.conductor.next_job, trial_id)
        self._bridge.check()
        return None if job is None else {"job": job}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the callback below gets more information."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to save: the journal and the log are on disk."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Log(_Stateless, tune.Callback):
    """Reports the events of Tune to the conductor."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        self._heard()

    def _heard(self) -> None:
        self._heard_at, self._patience_s = time.monotonic(), PATIENCE_S

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Warn if no trial was scheduled for `PATIENCE_S`, and again after twice as long; tell
        which trials have no process."""
        silent_s = time.monotonic() - self._heard_at
        if silent_s > self._patience_s:
            self._patience_s *= 2
            if not any(trial.status == trial.RUNNING for trial in trials):
                _LOG.warning(
                    "Ray has not started any trial for %.0f s. On a busy machine this takes "
                    "minutes. Otherwise `ray status` shows free and requested resources: if the "
                    "trials request more than there is and no nodes are being added, stop the "
                    "search and lower resources.* of the search space", silent_s,
                )  # fmt: skip
        conductor = self._bridge.conductor
        if conductor.standing_by:
            waiting = {trial.trial_id for trial in trials if trial.status == trial.PENDING}
            conductor.without_process = waiting
        self._bridge.check()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note that a trial has reported."""
        self._heard()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the conductor that a trial has ended, with its result."""
        bridge = self._bridge
        bridge.call(bridge.conductor.ended, trial.trial_id, result_of(trial.last_result or {}))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the conductor that a trial has failed, and why."""
        bridge = self._bridge
        bridge.call(bridge.conductor.ended, trial.trial_id, None, _reason(trial))


class _Reports(_Stateless, tune.Stopper):
    """Passes every report to the conductor before Tune acts on it; decides which trials stop."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        conductor = self._bridge.conductor
        if (said := result_of(result)) is not None:
            self._bridge.call(conductor.reported, trial_id, said)
        return bool(self._bridge.call(conductor.expired, trial_id))

    def stop_all(self) -> bool:
        """False: the searcher ends a study, not a stopper."""
        return False


def _reason(trial: Any) -> str:
    """One line with the reason why the process of a trial ended."""
    return last_reason(
        Path(trial.error_file).read_text("utf-8", "replace") if trial.error_file else ""
    )


def last_reason(text: str) -> str:
    """The error of the last attempt in Tune's error.txt: the exception below its traceback, else
    the first line."""
    _, _, last = text.rpartition("Failure # ")
    lines = [line for line in last.splitlines()[1:] if line.strip()]
    for number in range(len(lines) - 1, 0, -1):
        if lines[number - 1].startswith(" ") and not lines[number].startswith(" "):
            below = lines[number]
            break
    else:
        below = lines[0] if lines else "its process died"
    return below.strip()
