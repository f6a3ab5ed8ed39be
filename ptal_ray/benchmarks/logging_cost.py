"""What MLflow adds to a study: pairs of the same study, one of them logged to a new SQLite file.

The trials train nothing and last `TRIAL_S` seconds each. There is no Ray, so processor time is that
of the conductor, its policy, the event log and MLflow. Each study runs in a process of its own, and
the import of MLflow and the fresh database count.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

from ptal_ray.benchmarks.driver import UPLOAD_S, driven_study
from ptal_ray.benchmarks.without_ray import ConductorRun
from ptal_ray.errors import TrackingError
from ptal_ray.tracking.tracker import MlflowTracker

TRIAL_S = 2.0  # of a trial
REPORTS = 4  # of a trial, at equal distances


def profile_logging(trials: int, concurrent: int, policy: str, pairs: int) -> dict[str, Any]:
    """Runs `pairs` of studies; the logged one is the first of every other pair.

    Args:
        trials: of a study.
        concurrent: trials at a time.
        policy: of the study.
        pairs: number of pairs.

    Returns:
        What each study took, and what logging added by pair: processor seconds of the driver's
        process, also in percent of the time of all trials (`TRIAL_S` each), and wall seconds
        without the time to connect, which a search spends while Ray starts.

    Raises:
        TrackingError: a study ended early, or MLflow lacks a part of it.
    """
    studies: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for number in range(pairs):
        for logged in (number % 2 == 0, number % 2 == 1):
            studies[logged].append(_in_a_process(trials, concurrent, policy, logged))
    both = list(zip(studies[True], studies[False], strict=True))
    cpu = [a["cpu_s"] - b["cpu_s"] for a, b in both]
    wall = [a["wall_s"] - b["wall_s"] for a, b in both]
    return {
        "trials": trials, "concurrent": concurrent, "policy": policy,
        "with MLflow": studies[True], "without": studies[False],
        "added CPU s": _spread(cpu),
        "% of the time of all trials": _spread([100 * s / (TRIAL_S * trials) for s in cpu]),
        "added wall s": _spread(wall),
        "% of the wall time": _spread(
            [100 * s / b["wall_s"] for s, (_, b) in zip(wall, both, strict=True)]
        ),
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _in_a_process(trials: int, concurrent: int, policy: str, logged: bool) -> dict[str, float]:
    asked = json.dumps([trials, concurrent, policy, logged])
    command = [sys.executable, "-m", __name__, asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise TrackingError(f"profile logging: a study ended with exit code {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_study(trials: int, concurrent: int, policy: str, logged: bool) -> dict[str, float]:
    """Runs one study; arguments as those of `profile_logging`.

    Returns:
        Processor seconds of this process from before connecting until MLflow has all, wall seconds
        without connecting, wall and processor seconds to connect, and the number of reports.

    Raises:
        TrackingError: MLflow lacks a part of it.
    """
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # artifacts go below it
        study = driven_study(Path(folder), trials, concurrent, policy)
        tracker = MlflowTracker(study.directory, f"sqlite:///{folder}/mlflow.db", "ptal/profile")
        cpu, began = time.process_time(), time.perf_counter()
        if logged:
            tracker.start()
        connected, connect_cpu = time.perf_counter(), time.process_time() - cpu
        run = ConductorRun(study, concurrent)
        run.run(pause_s=TRIAL_S / REPORTS)
        missing = tracker.close(UPLOAD_S) if logged else ()
        if missing:
            raise TrackingError(missing[0])
        return {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - connected,
            "connect_s": connected - began,
            "connect_cpu_s": connect_cpu,
            "reports": run.reports,
        }


if __name__ == "__main__":
    print(json.dumps(one_study(*json.loads(sys.argv[1]))))
