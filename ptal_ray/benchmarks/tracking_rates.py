"""Measures the runs and metrics per second that trackers write to a tracking server.

Each writer is a process with its own tracker and study. All steps are included: events are read
from a log, translated to runs and sent to the server, and the position in the log is saved.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptal_ray.errors import TrackingError
from ptal_ray.space.domain import Scalar
from ptal_ray.study.event_types import Event, Report, StudyStart, TrialEnd, TrialStart
from ptal_ray.study.events import dumps, loads
from ptal_ray.tracking import tracker as mlflow_tracker
from ptal_ray.tracking.tracker import MlflowTracker

PATIENCE_S = 1800.0  # of a writer


@dataclass(frozen=True, kw_only=True)
class Load:
    """The load of one writer.

    Args:
        runs: number of trials; each is a run.
        reports: number per trial.
        metrics: number per report, including its objective and its seconds.
        one_by_one: whether every event is a separate round, as in a study with slow reports;
            otherwise the whole log is written at once, as after an outage.
    """

    runs: int = 40
    reports: int = 20
    metrics: int = 10
    one_by_one: bool = False


def measure(uri: str, load: Load, writers: int, repeats: int) -> list[dict[str, float]]:
    """Runs and metrics per second of `writers` processes together, from the first byte of their
    logs to the last answer of the server (without the time to connect), and the processor time of a
    writer per run, which depends little on other work on the machine.

    Args:
        uri: tracking URI.
        load: of each writer.
        writers: number of processes.
        repeats: number of measurements, each on new studies.

    Raises:
        TrackingError: the server does not answer, or not everything was written.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes = [_started(uri, Path(folder) / str(k), load) for k in range(writers)]
        try:
            return [_once(processes, load) for _ in range(repeats)]
        except KeyboardInterrupt:
            for process in processes:
                process.terminate()
            raise
        finally:
            for process in processes:
                process.communicate()  # it ends at the end of its input


def _once(processes: list[subprocess.Popen[str]], load: Load) -> dict[str, float]:
    for process in processes:
        _line(process)  # it is connected
    began = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [loads(_line(process)) for process in processes]
    seconds = time.perf_counter() - began
    for answer in answers:
        if answer["missing"]:
            raise TrackingError(answer["missing"][0])
    runs = len(processes) * load.runs
    return {
        "runs/s": runs / seconds,
        "metrics/s": runs * load.reports * load.metrics / seconds,
        "writer CPU ms/run": sum(a["cpu_s"] for a in answers) * 1e3 / runs,
    }


def _started(uri: str, folder: Path, load: Load) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, "-m", __name__, *(str(int(v)) for v in vars(load).values())]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}  # other users can read command lines
    return subprocess.Popen(
        command, env=environment, cwd=folder, text=True, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,  # only this process handles Ctrl-C
    )  # fmt: skip


def _line(process: subprocess.Popen[str]) -> str:
    """The next line of a writer's output.

    Raises:
        TrackingError: the writer has ended.
    """
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise TrackingError(f"a writer ended with exit code {process.wait()}; its error is above")
    return line.strip()


def events(load: Load, name: str) -> Iterator[Event]:
    """The events of a study of `load.runs` trials with artificial values."""
    yield StudyStart(
        study=name, method="none", dataset="rates", features="none",
        note="Made up, for timing only.", space={"budget": {"max_steps": load.reports}},
        defaults={"train": {}, "decode": {}}, seed=0, data_hash="0" * 32, searcher="none",
        scheduler="none",
    )  # fmt: skip
    for trial in range(load.runs):
        params: dict[str, Scalar] = {f"p{k}": k / 7 for k in range(5)}
        yield TrialStart(trial=trial, params=params)
        for step in range(1, load.reports + 1):
            values = {f"m{k}": (trial + k) / step for k in range(load.metrics - 2)}
            yield Report(
                trial=trial, step=step, objective=1 / step, metrics=values, decode={},
                seconds=float(step),
            )  # fmt: skip
        yield TrialEnd(trial=trial, state="complete")


def write(load: Load, folder: Path) -> None:
    """Write one study: print that it is connected, wait for a line, write, print the result."""
    folder.mkdir()
    name = f"rates-{os.getpid()}-{time.time()}"
    lines = (dumps(event.line()) + "\n" for event in events(load, name))
    (folder / "ready.jsonl").write_text("".join(lines), encoding="utf-8")
    tracker = MlflowTracker(folder, experiment="ptal/rates")
    tracker.start()
    print("connected", flush=True)
    if sys.stdin.readline():
        began = time.process_time()
        (folder / "ready.jsonl").rename(folder / "events.jsonl")
        missing = tracker.close(PATIENCE_S)
        spent = time.process_time() - began
        print(dumps({"missing": missing, "cpu_s": spent}), flush=True)


def main() -> None:
    """The loop of a writer: one study after the other, until its input ends."""
    runs, reports, metrics, one_by_one = map(int, sys.argv[1:])
    if one_by_one:
        mlflow_tracker.ROUND_BYTES = 1  # a round has at least one line
    load = Load(runs=runs, reports=reports, metrics=metrics)
    for number in itertools.count():
        folder = Path.cwd() / str(number)
        write(load, folder)
        if not (folder / "events.jsonl").exists():
            return


if __name__ == "__main__":
    main()
