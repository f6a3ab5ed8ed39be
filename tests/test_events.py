"""What each line of events.jsonl says: its type, its fields, and what is wrong with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_events import report, reported, study_start

from ptal_ray.errors import DataError
from ptal_ray.study.conclusion import recommended
from ptal_ray.study.event_types import (
    KINDS,
    Event,
    FinalReport,
    Recommendation,
    Restart,
    StudyEnd,
    TrialEnd,
    TrialStart,
)
from ptal_ray.study.events import EventLog, dumps, loads, read_events
from ptal_ray.study.results import Failed, Result, StandBy, result_of
from ptal_ray.study.view import StudyView

ARM = {"arm": 0, "trial": 0, "params": {}, "cells": 1, "mean": 0.5, "sd": math.inf, "state": "in"}
BEST = Recommendation(
    arm=2, trial=None, params={"lr": math.nan}, decode={"kind": "hard"}, verdict="tie",
    difference={"mean": 0.1, "low": -math.inf, "high": math.nan, "cells": 2}, arms=(ARM,),
)  # fmt: skip
FINAL = FinalReport(
    arm="best", role="test", seed=0, run_seed=1, params={"lr": 0.1}, decode={}, step=40,
    metrics={"test/mAP_avg": math.nan}, detections="final/best_seed0/detections.json",
)  # fmt: skip
END = StudyEnd(
    state="done", verdict=BEST.verdict, difference=BEST.difference, arms=BEST.arms, best_trial=None,
    recommended=BEST.short(),
)  # fmt: skip
WHOLE: list[Event] = [
    study_start(space={"a": math.nan}, annotated={"search": ["v"], "final": []}),
    TrialStart(trial=0, params={"lr": math.inf}, arm=0, fold=None, seed=3),
    report(objective=math.nan, settings=(0.1, math.nan), losses={"total": [[1, math.nan]]}),
    TrialEnd(trial=0, state="failed", message="loss is nan"),
    Restart(run="trials/00000", reason="it died"),
    Restart(run="final/best_seed0", reason="failed 3 times", again=False),
    BEST,
    FINAL,
    END,
]
# As earlier versions wrote it: no arm, no settings, no seed of final runs, the best in the end.
BY_HAND = """\
{"event": "study", "time": 1.0, "study": "s", "method": "apn", "dataset": "d", "features": "real", \
"note": "n", "space": {}, "defaults": {"train": {"lr": 1}, "decode": {}}, "seed": 0, \
"git_commit": "c", "versions": {}, "hardware": {}, "data_hash": "h", "searcher": "tpe", \
"scheduler": "asha", "of_a_later_version": 1}
{"event": "trial_start", "time": 2.0, "trial": 3, "params": {"lr": 2}, "from_step": 0}
{"event": "report", "time": 3.0, "trial": 3, "step": 10, "objective": "NaN", "metrics": {}, \
"decode": {}, "seconds": 1, "to_first_step_s": null}
{"event": "trial_end", "time": 4.0, "trial": 3, "state": "complete", "message": ""}
{"event": "final_report", "time": 5.0, "arm": "default", "role": "test", "seed": 1, "params": {}, \
"decode": {}, "step": 10, "metrics": {}, "detections": null}
{"event": "study_end", "time": 6.0, "state": "done", "best_trial": 3, "best_params": {"lr": 2}, \
"best_decode": {}, "message": ""}
"""


def in_text(events: list[Event]) -> list[str]:
    """Their lines; NaN differs from itself."""
    return [dumps(event.line()) for event in events]


def test_every_kind_survives_with_numbers_that_json_lacks(tmp_path: Path) -> None:
    assert {event.kind for event in WHOLE} == set(KINDS)
    log = EventLog(tmp_path / "events.jsonl")
    for event in WHOLE:
        log.append(event)
    back = read_events(log.path)
    assert [type(event) for event in back] == [type(event) for event in WHOLE]
    assert in_text(back) == in_text(WHOLE)
    assert log.path.read_text().splitlines() == in_text(WHOLE)
    seen = back[2]
    assert isinstance(seen, type(report())) and math.isnan(seen.objective)
    assert isinstance(seen.settings, tuple) and math.isnan(seen.losses["total"][0][1])


def test_a_log_of_an_earlier_version_opens(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(BY_HAND)
    view = StudyView.read(tmp_path)
    (trial,) = view.trials
    assert (trial.arm, trial.seed, trial.reports[0].settings) == (3, None, ())
    assert math.isnan(trial.reports[0].objective)
    assert [(run.run_seed, run.detections) for run in view.finals] == [(None, None)]
    assert view.best_config() == ({"lr": 2}, {})
    assert recommended(view) is None


def test_recorded_lines_are_written_as_they_were_read() -> None:
    """Of a race of the toy method, recorded when events were dictionaries; arms are cut to two."""
    path = Path(__file__).parent / "golden" / "events.jsonl"
    read = read_events(path)
    assert {event.kind for event in read} == set(KINDS)
    assert in_text(read) == path.read_text("utf-8").splitlines()


def test_a_line_has_what_it_had() -> None:
    keys = ["event", "time", "state", "message"]
    assert list(StudyEnd(state="done").line()) == keys
    assert list(END.line()) == [
        *keys, "verdict", "difference", "arms", "best_trial", "recommended"
    ]  # fmt: skip
    assert END.line()["best_trial"] is None
    assert list(Restart(run="r", reason="it died").line()) == ["event", "time", "run", "reason"]
    keys = ["event", "time", "arm", "role", "seed", "run_seed", "params", "decode", "step",
            "metrics", "detections"]  # fmt: skip
    assert list(FINAL.line()) == keys


def test_an_end_alone_says_what_is_recommended() -> None:
    found = recommended(StudyView.from_events([study_start(), END]))
    assert (
        found is not None
        and in_text([found])[0].partition('"arm"')[2] == (in_text([BEST])[0].partition('"arm"')[2])
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"event": "report", "trial": 0}, "event report lacks step; restore or remove"),
        ({"event": "trial_end", "trial": "0", "state": "x"},
         "trial of event trial_end: '0' is not a whole number"),
        ({"event": "trial_end", "trial": True, "state": "x"}, "'True' is not a whole number"),
        ({"event": "trial_start", "trial": 0, "params": []},
         "params of event trial_start: '[]' is not an object"),
        ({"event": "trial_start", "trial": 0, "params": {}, "fold": 0.5},
         "fold of event trial_start: '0.5' is not a whole number or null"),
        ({"event": "sudy"}, "event 'sudy' is unknown; allowed are study, trial_start, "),
        ({"event": None}, "event 'None' is unknown"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(BY_HAND + json.dumps({"time": 7.0} | line) + "\n")
    with pytest.raises(DataError) as error:
        read_events(path)
    assert str(error.value).startswith(f"{path}:7: ") and said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "result",
    [
        reported(40, done=True, settings=(0.5, 0.25), to_first_step_s=0.1, event=FINAL, note="x"),
        Failed(message="loss is nan"),
        Failed(message="storage full", halt="storage", note="a worker died"),
        Failed(message="failed 3 times", crashed=True),
        StandBy(),
    ],
)
def test_a_result_survives_tune_and_its_file(result: Result) -> None:
    by_tune = {"training_iteration": 3, "trial_id": "a"}
    back = result_of(loads(dumps(result.plain())) | by_tune)
    assert type(back) is type(result) and back is not None
    assert dumps(back.plain()) == dumps(result.plain())


def test_what_tune_says_before_a_report_is_no_result() -> None:
    assert result_of({}) is None
    assert result_of({"done": True, "trial_id": "a"}) is None
