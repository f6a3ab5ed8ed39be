"""Events of a study whose fields are made up where a test does not care."""

from __future__ import annotations

from typing import Any

from ptal_ray.study.event_types import Report, StudyStart
from ptal_ray.study.results import Reported


def study_start(**fields: Any) -> StudyStart:
    plain: dict[str, Any] = {
        "study": "demo", "method": "apn", "dataset": "demo", "features": "real", "space": {},
        "defaults": {"train": {}, "decode": {}}, "seed": 0, "data_hash": "0" * 64,
        "searcher": "tpe", "scheduler": "asha",
    }  # fmt: skip
    return StudyStart(**plain | fields)


def report(trial: int = 0, step: int = 10, objective: float = 0.5, **fields: Any) -> Report:
    plain = {"metrics": {}, "decode": {}, "seconds": 1.0} | fields
    return Report(trial=trial, step=step, objective=objective, **plain)


def reported(step: int, objective: float = 0.5, **fields: Any) -> Reported:
    plain = {"metrics": {}, "decode": {}, "seconds": 1.0, "done": False} | fields
    return Reported(step=step, objective=objective, **plain)
