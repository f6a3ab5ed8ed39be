"""What MLflow holds of a study, and what its event log says it must hold: all of it, once."""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from ptal_ray.study.event_types import Event, FinalReport, Report, StudyEnd, TrialEnd, TrialStart
from ptal_ray.study.events import dumps, read_events

STUDENT = {2: 12.706204736174694, 3: 4.302652729749462}  # 97.5 % quantile by number of seeds
Curves = dict[tuple[str, int], list[float]]  # (metric, step) -> its values, mostly one


def study_id(directory: Path) -> str:
    with (directory / "events.jsonl").open("rb") as log:
        return hashlib.sha256(log.readline()).hexdigest()[:32]


def logged_runs(uri: str, directory: Path) -> tuple[dict[str, Any], MlflowClient]:
    """The runs of a study by their key, and the client that reads them."""
    client = MlflowClient(uri)
    dataset = read_events(directory / "events.jsonl")[0].dataset
    experiment = client.get_experiment_by_name(f"ptal/{dataset}")
    if experiment is None:
        return {}, client
    mine = f"tags.`ptal.study_id` = '{study_id(directory)}'"
    found = client.search_runs([experiment.experiment_id], mine, max_results=5000)
    by_key = {run.data.tags["ptal.run"]: run for run in found}
    assert len(by_key) == len(found), "a run exists twice"
    return by_key, client


def logged_numbers(uri: str, directory: Path) -> dict[str, Curves]:
    """Every number that MLflow has of a study."""
    runs, client = logged_runs(uri, directory)
    found: dict[str, Curves] = {}
    for key, run in runs.items():
        curves: Curves = defaultdict(list)
        for name in run.data.metrics:
            if name.startswith("system/"):
                continue  # of the machine
            for point in client.get_metric_history(run.info.run_id, name):
                curves[name, point.step].append(point.value)
        found[key] = dict(curves)
    return found


def expected_numbers(directory: Path) -> dict[str, Curves]:
    """Every number that the log of a study says."""
    events = read_events(directory / "events.jsonl")
    last_step = events[0].space["budget"]["max_steps"]
    found: dict[str, Curves] = {"study": {}}
    for event in events:
        if isinstance(event, TrialStart):
            found.setdefault(f"trial/{event.trial}", {})
        elif isinstance(event, Report):
            run = found[f"trial/{event.trial}"]
            _add(run, event.step, _of_report(event, last_step))
            for term, points in event.losses.items():
                for step, value in points:
                    run[f"train/loss_{term}", step] = [value]
        elif isinstance(event, FinalReport):
            run = found.setdefault(f"{event.role}/{event.arm}/seed{event.seed}", {})
            _add(run, event.step, _shown(event.metrics))
    if isinstance(events[-1], StudyEnd):
        _add_summaries(found, events)
    return found


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    """No mAP at one threshold, and the first average under its short name only."""
    left = [k for k in metrics if "/mAP_0." not in k and "/mAP_1." not in k]
    averages = [k for k in left if "/mAP_avg_" in k]
    return {k: metrics[k] for k in left if k not in averages[:1]}


def _of_report(event: Report, last_step: int) -> dict[str, float]:
    metrics = _shown(event.metrics)
    metrics.pop("val/mAP_avg", None)  # it is the objective
    metrics["objective" if event.step == last_step else "objective_last"] = event.objective
    more = {"seconds": event.seconds, "to_first_step_s": event.to_first_step_s}
    return metrics | {k: v for k, v in more.items() if v is not None}


def _add(curves: Curves, step: int, values: dict[str, float]) -> None:
    """Adds what is new; a trial that was repeated after a kill reports the same again."""
    for name, value in values.items():
        curves.setdefault((name, step), [value])


def _add_summaries(found: dict[str, Curves], events: list[Event]) -> None:
    """Mean and spread over the seeds of every arm, the recommended one's also in the study."""
    arms: dict[str, dict[int, FinalReport]] = defaultdict(dict)
    for event in events:
        if isinstance(event, FinalReport):
            arms[f"{event.role}/{event.arm}"].setdefault(event.seed, event)
    recommended = "test/best" if "test/best" in arms else "test/default"
    for arm, seeds in arms.items():
        found[arm] = {("seeds", 0): [float(len(seeds))]}
        for name in _shown(next(iter(seeds.values())).metrics):
            if name.startswith("train/"):
                continue
            values = [event.metrics[name] for event in seeds.values()]
            mean = statistics.fmean(values)
            found[arm][name, 0] = [mean]
            if len(values) > 1:
                sd = statistics.stdev(values)
                found[arm][f"{name}_sd", 0] = [sd]
                if name.endswith("/mAP_avg"):
                    half = STUDENT[len(values)] * sd / math.sqrt(len(values))
                    found[arm][f"{name}_low", 0] = [mean - half]
                    found[arm][f"{name}_high", 0] = [mean + half]
        if arm == recommended:
            found["study"] |= found[arm]


def assert_all_numbers(uri: str, directory: Path) -> int:
    """Every number of the log is in MLflow, exactly and once, and no other; how many there are."""
    expected, logged = expected_numbers(directory), logged_numbers(uri, directory)
    assert logged.keys() == expected.keys()
    for run, curves in expected.items():
        assert logged[run].keys() == curves.keys(), run
        for point, values in curves.items():
            found = logged[run][point]
            assert len(found) == len(values), f"{run} {point} is logged {len(found)} times"
            mean = run.count("/") == 1 and not run.startswith("trial/") or run == "study"
            for one, other in zip(sorted(found), sorted(values), strict=True):
                assert _same(one, other, rounded=mean), f"{run} {point}"
    return sum(len(curves) for curves in expected.values())


def _same(logged: float, said: float, rounded: bool) -> bool:
    """Equality; a mean or a spread may differ in the last bits, by the order of its sum."""
    if rounded:
        return math.isclose(logged, said, rel_tol=1e-12, abs_tol=1e-15)
    if math.isnan(said):
        return math.isnan(logged)
    largest = sys.float_info.max  # what MLflow keeps of an infinity
    return logged == max(-largest, min(said, largest))


def assert_runs_are_right(uri: str, directory: Path) -> None:
    """Names, parents, parameters, states and times of the runs of a finished study."""
    runs, _ = logged_runs(uri, directory)
    events = read_events(directory / "events.jsonl")
    space, _, time = directory.name.split("-")
    assert runs["study"].info.run_name == f"{time} {space}"
    assert runs["study"].info.status == "FINISHED"
    states = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    for event in events:
        if isinstance(event, TrialStart):
            run = runs[f"trial/{event.trial}"]
            assert run.info.run_name == f"trial {event.trial:03d}"
            assert run.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
            said = {f"train.{k}": v for k, v in event.params.items()}
            said = {k: v if isinstance(v, str) else dumps(v) for k, v in said.items()}
            decode = {k: v for k, v in run.data.params.items() if k.startswith("decode.")}
            assert run.data.params == said | decode
        elif isinstance(event, TrialEnd):
            run = runs[f"trial/{event.trial}"]
            assert run.info.status == states[event.state]
            assert run.info.end_time == round(event.time * 1000)
        elif isinstance(event, FinalReport):
            arm = f"{event.role}/{event.arm}"
            run = runs[f"{arm}/seed{event.seed}"]
            assert run.data.tags["mlflow.parentRunId"] == runs[arm].info.run_id
            assert run.data.params["seed"] == str(
                event.seed if event.run_seed is None else event.run_seed
            )
