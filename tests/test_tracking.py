"""The event log and the view of a study."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_events import report, study_start
from synthetic_study import SyntheticStudy

from ptal_ray.errors import DataError, StorageError
from ptal_ray.space.space import load_space
from ptal_ray.study.event_types import Restart, StudyEnd, TrialEnd, TrialStart
from ptal_ray.study.events import EventLog, dumps, loads, read_events
from ptal_ray.study.view import StudyView, best_yaml, summarise


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "study" / "events.jsonl")


def test_events_come_back_in_order(log):
    params = {"lr": 1e-4, "on": True, "kind": "hard"}
    written = [study_start(study="Ünïcode", seed=3), TrialStart(time=12.5, trial=0, params=params)]
    for event in written:
        log.append(event)
    assert read_events(log.path) == written


def test_not_a_number_survives_as_strict_json(log):
    values = [math.nan, math.inf, -math.inf, np.float32(0.5), np.int64(3), 1 / 3, Path("a/b")]
    log.append(study_start(space={"values": values}))

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    plain = json.loads(log.path.read_text(), parse_constant=refuse)["space"]["values"]
    assert plain == ["NaN", "Infinity", "-Infinity", 0.5, 3, 1 / 3, "a/b"]
    back = read_events(log.path)[0].space["values"]
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    with pytest.raises(TypeError):
        log.append(study_start(space={"value": object()}))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text().filter(lambda t: t not in ("NaN", "Infinity", "-Infinity")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8,
))  # fmt: skip
def test_any_json_value_survives(value):
    assert loads(dumps(value)) == value
    assert "\n" not in dumps(value)


@pytest.mark.parametrize("keep", [1, 10, 30])
def test_a_torn_last_line_is_left_out_named_and_removed(log, caplog, keep):
    log.append(study_start())
    whole = log.path.read_bytes()
    log.append(report())
    log.path.write_bytes(log.path.read_bytes()[: len(whole) + keep])
    with caplog.at_level(logging.WARNING):
        assert [e.kind for e in read_events(log.path)] == ["study"]
    assert f"cut off after {keep} bytes" in caplog.text
    EventLog(log.path).append(report())
    assert [e.kind for e in read_events(log.path)] == ["study", "report"]


def test_a_line_that_lacks_only_its_end_is_kept(log):
    log.append(study_start())
    log.append(report())
    log.path.write_bytes(log.path.read_bytes()[:-1])
    assert len(read_events(log.path)) == 2
    EventLog(log.path).append(report(1))
    assert [getattr(e, "trial", None) for e in read_events(log.path)] == [None, 0, 1]


def test_a_log_that_is_one_torn_line_becomes_empty(log):
    log.path.write_bytes(b'{"event": "stu')
    EventLog(log.path).append(study_start())
    assert len(read_events(log.path)) == 1


@pytest.mark.parametrize("damaged", [b"{oops", b'{"event": "x"}', b"[1]", b""])
def test_a_damaged_line_in_the_middle_is_an_error_with_its_place(log, damaged):
    log.append(study_start())
    with log.path.open("ab") as file:
        file.write(damaged + b"\n")
    log.append(report())
    with pytest.raises(DataError, match=r"events\.jsonl:2: not"):
        read_events(log.path)


def test_no_log_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_events(tmp_path / "events.jsonl")


def test_threads_do_not_mix_lines(log):
    def write(thread):
        for k in range(25):
            log.append(TrialEnd(trial=thread, state=str(k), message="x" * 2000))

    threads = [threading.Thread(target=write, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = read_events(log.path)
    for thread in range(4):
        assert [int(e.state) for e in events if e.trial == thread] == list(range(25))


def test_a_full_disk_leaves_whole_lines(log, monkeypatch):
    log.append(study_start())
    before = log.path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(StorageError, match=r"storage full: .*events.jsonl .*--resume"):
        log.append(report())
    assert log.path.read_bytes() == before


def test_a_log_can_be_pickled(log):
    copy = pickle.loads(pickle.dumps(log))
    copy.append(study_start())
    assert len(read_events(log.path)) == 1


def test_the_view_of_a_whole_study(tmp_path):
    view = StudyView.read(SyntheticStudy(tmp_path / "demo").whole())
    assert view.counts == {"running": 0, "complete": 5, "pruned": 6, "failed": 1}
    assert [t.number for t in view.trials] == list(range(12))
    best = view.best
    assert best.objective == max(t.objective for t in view.trials if t.state == "complete")
    assert [r.step for r in best.reports] == [10, 30, 90]
    assert best.ended - best.started == 8.0
    assert view.trials[4].message.startswith("train/loss_total")
    assert view.arms("test") == ("best", "default")
    assert view.arms("reselect") == ("candidate1", "candidate2")
    assert [f.seed for f in view.runs("test", "best")] == [0, 1, 2]
    summary = summarise(view.runs("test", "best"))["test/mAP_0.50"]
    assert summary.values == pytest.approx([0.55 * 0.7, 0.56 * 0.7, 0.57 * 0.7])
    assert summary.mean == pytest.approx(0.56 * 0.7)
    assert summary.sd == pytest.approx(0.01 * 0.7)
    assert summarise(view.runs("test", "best")[:1])["test/mAP_0.50"].sd is None
    assert summarise([]) == {}


def test_the_last_of_two_reports_of_a_step_counts(log):
    log.append(TrialStart(time=1.0, trial=0, params={"lr": 0.1}, from_step=0))
    log.append(report(step=10, objective=0.1))
    log.append(report(step=30, objective=0.3))
    log.append(TrialStart(time=5.0, trial=0, params={"lr": 0.1}, from_step=10))
    log.append(report(step=30, objective=0.2))
    (trial,) = StudyView.read(log.path.parent).trials
    assert [(r.step, r.objective) for r in trial.reports] == [(10, 0.1), (30, 0.2)]
    assert (trial.state, trial.started, trial.objective) == ("running", 1.0, 0.2)


def test_best_is_complete_finite_and_the_first_of_equals(log):
    for number, (objective, state) in enumerate(
        [(0.9, "pruned"), (math.nan, "complete"), (0.5, "complete"), (0.5, "complete")]
    ):
        log.append(TrialStart(trial=number, params={}, from_step=0))
        log.append(report(number, 1, objective))
        log.append(TrialEnd(trial=number, state=state, message=""))
    view = StudyView.read(log.path.parent)
    assert view.best.number == 2
    assert not view.trials[1].finite


def test_the_end_of_an_interrupted_study_is_forgotten_when_it_goes_on(log):
    log.append(study_start())
    log.append(StudyEnd(state="interrupted"))
    assert StudyView.read(log.path.parent).end.state == "interrupted"
    log.append(Restart(run="trials/00000", reason="it died"))
    assert StudyView.read(log.path.parent).end.state == "interrupted"
    log.append(study_start())
    assert StudyView.read(log.path.parent).end is None


def test_extending_a_view_is_reading_it_whole(tmp_path):
    events = read_events(SyntheticStudy(tmp_path / "demo").whole() / "events.jsonl")
    view = StudyView()
    for event in events:
        view = view.extend([event])
    assert view == StudyView.from_events(events)


def test_the_winner_as_yaml_can_be_loaded_and_fixes_everything(tmp_path):
    study = SyntheticStudy(tmp_path / "demo")
    study.begin()
    assert best_yaml(StudyView.read(study.directory)) is None
    study.trials(12)
    view = StudyView.read(study.directory)
    train, decode = view.best_config()
    assert (train["lr"], decode["nms_tiou"]) == (
        view.best.params["lr"], view.best.reports[-1].decode["nms_tiou"],
    )  # fmt: skip
    study.finals()
    study.end()
    path = tmp_path / "best.yaml"
    path.write_text(best_yaml(StudyView.read(study.directory)))
    space = load_space(path)
    assert space.train == {} and space.decode == {}
    assert space.train_fixed == study.space.train_defaults() | {"lr": 0.01}
    assert space.decode_fixed == study.space.decode_defaults() | {"nms_tiou": 0.45}
    assert (space.method, space.dataset) == ("apn", "demo")
    assert space.budget == study.space.budget
