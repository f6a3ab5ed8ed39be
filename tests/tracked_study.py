"""A study that grows while its tracker follows it; also a process of its own:

python tracked_study.py DIRECTORY SHARE

waits for a line on its input and prints what MLflow lacks in the end, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import HANG_S
from synthetic_study import STEPS, SyntheticStudy

from ptal_ray.tracking.tracker import MlflowTracker


def grow(study: SyntheticStudy, trials: range, share: float, pause_s: float) -> None:
    """Trials that report every `pause_s`; `share` of the usual quality tells studies apart."""
    for number in trials:
        quality = share * study.start(number)
        for step in STEPS:
            study.report(number, step, quality)
            time.sleep(pause_s)
        study.append("trial_end", trial=number, state="complete", message="")


def main() -> None:
    study, share = SyntheticStudy(Path(sys.argv[1])), float(sys.argv[2])
    sys.stdin.readline()
    tracker = MlflowTracker(study.directory)
    tracker.start()
    study.begin()
    grow(study, range(4), share, pause_s=0.1)
    study.finals()
    study.end()
    print(json.dumps(tracker.close(600.0)))


def track(study, uri, timeout_s=60.0):
    tracker = MlflowTracker(study.directory, uri)
    tracker.start()
    return tracker.close(timeout_s)


def runs_of(uri, experiment="ptal/demo"):
    """Runs by their key, and the client that reads them."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    by_key = {run.data.tags["ptal.run"]: run for run in found}
    assert len(by_key) == len(found), "a run exists twice"
    return by_key, client


def snapshot(uri):
    """Runs, parameters and metrics but those of the machine, which a thread adds all the time."""
    runs, client = runs_of(uri)
    return {
        key: {
            "run": run.info.run_id,
            "values": run.data.params,
            "metrics": {
                name: sorted((m.step, m.timestamp, m.value) for m in
                             client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
                if not name.startswith("system/")
            },
        }
        for key, run in runs.items()
    }  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


if __name__ == "__main__":
    main()
