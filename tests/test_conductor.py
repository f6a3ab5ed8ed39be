"""The order of the runs of a study, and what is logged of them, told as Tune would."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from made_events import report as made_report
from made_events import reported, study_start
from small_study import begun, small_study

from ptal_ray.errors import NoTrialFinished
from ptal_ray.policy.policies import make_policy
from ptal_ray.study.conductor import Conductor, searched_seconds
from ptal_ray.study.event_types import Event, FinalReport, Restart, StudyEnd, TrialEnd, TrialStart
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.job import STANDBY, Job
from ptal_ray.study.results import Failed, Reported
from ptal_ray.study.run_folder import CHECKPOINT
from ptal_ray.study.start_end import study_event
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return begun(small_study(tmp_path))


class Desk:
    """A conductor, and what Tune would tell it."""

    def __init__(self, study: Study) -> None:
        self.events: list[Event] = []
        self.conductor = Conductor(
            study,
            make_policy(study),
            EventLog(study.events),
            self.events.append,
        )
        self.jobs: dict[str, Job] = {}

    def take(self, *ids: str) -> list[str]:
        """Folders of the next jobs, "standby" or "none"."""
        found = []
        for id in ids:
            text = self.conductor.next_job(id)
            if text:
                self.jobs[id] = Job.from_json(text)
            names = {None: "none", STANDBY: "standby"}
            found.append(self.jobs[id].folder if text else names[text])
        return found

    def report(self, id: str, step: int, objective: float = 0.5) -> Reported:
        metrics = {"val/mAP_avg": objective}
        result = reported(step, objective, metrics=metrics, settings=(objective,))
        self.conductor.reported(id, result)
        return result

    def end(self, id: str, step: int = 40, objective: float = 0.5) -> None:
        self.conductor.ended(id, self.report(id, step, objective))

    def end_final(self, id: str) -> None:
        job = self.jobs[id]
        score = {"reselect": "val", "test": "test"}[job.role]
        event = FinalReport(
            arm=job.arm, role=job.role, seed=job.repeat, step=40, params=job.config.train,
            decode=job.config.decode, metrics={f"{score}/mAP_avg": 0.5},
        )  # fmt: skip
        result = reported(40, event=event)
        self.conductor.reported(id, result)
        self.conductor.ended(id, result)


def test_search_then_reselect_then_test(study: Study) -> None:
    desk = Desk(study)
    assert desk.take("a", "b") == ["trials/00000", "trials/00001"]
    desk.end("a", 40, 0.2)
    desk.end("b", 10)
    assert desk.take("c", "d") == ["trials/00002", "trials/00003"]
    desk.conductor.ended("c", Failed(message="loss is nan"))
    assert desk.take("e") == ["standby"]
    assert not desk.conductor.expired("e")
    desk.end("d", 40, 0.9)
    assert desk.take("f") == ["final/candidate1_seed0"]
    assert desk.conductor.expired("e")
    desk.conductor.ended("e", None)
    assert desk.take("g", "h", "i") == [
        "final/candidate1_seed1", "final/candidate2_seed0", "final/candidate2_seed1"
    ]  # fmt: skip
    assert desk.take("j") == ["standby"]
    for id in "fghi":
        desk.end_final(id)
    assert not desk.conductor.expired("j")  # until the runs after these are known
    names = desk.take(*"klmn")
    assert names == ["final/best_seed0", "final/best_seed1", "final/default_seed0",
                     "final/default_seed1"]  # fmt: skip
    assert not desk.conductor.expired("j")  # one of these may need its place
    assert desk.take("o") == ["standby"]
    desk.conductor.ended("k", None, "its node was lost")
    assert desk.conductor.expired("j")
    desk.conductor.ended("j", None)
    assert desk.take("p") == ["final/best_seed0"]
    assert not desk.conductor.over
    for id in "lmnp":
        desk.end_final(id)
    assert desk.conductor.over
    view = StudyView.read(study.directory)
    assert [t.state for t in view.trials] == ["complete", "pruned", "failed", "complete"]
    assert view.trials[2].message == "loss is nan"
    assert len(view.finals) == 8
    assert desk.jobs["p"].config.train == desk.jobs["d"].config.train
    assert desk.events == read_events(study.events)[1:]


def test_a_failed_final_run_does_not_end_the_study(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id)
    desk.take("e")
    desk.conductor.ended("e", Failed(message="ValueError: no"))
    assert read_events(study.events)[-1].message == "ValueError: no"


def test_a_run_whose_process_is_lost_is_taken_up_but_not_forever(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b")
    desk.report("a", 10)
    for lost, id in (("a", "c"), ("c", "d")):
        desk.conductor.ended(lost, None, "it died")
        assert desk.take(id) == ["trials/00000"]
        assert desk.jobs[id].reported_step == 10
    desk.conductor.ended("d", None, "it died again")
    assert [e.reason for e in desk.events if isinstance(e, Restart)] == ["it died"] * 2
    end = desk.events[-1]
    assert (end.kind, end.state) == ("trial_end", "failed")
    assert end.message == "failed 3 times; last: it died again"
    assert desk.take("e") == ["trials/00002"]


def test_losses_between_which_a_trial_gets_on_do_not_end_it(study: Study) -> None:
    desk = Desk(study)
    desk.take("a")
    for step, id, then in ((10, "a", "b"), (20, "b", "c"), (30, "c", "d")):
        desk.report(id, step)
        desk.conductor.ended(id, None, "its node was lost")
        assert desk.take(then) == ["trials/00000"]
    desk.end("d", 40)
    assert desk.events[-1].state == "complete"


def test_a_final_run_that_cannot_keep_its_process_is_tried_when_the_study_goes_on(
    study: Study,
) -> None:
    desk, names = _in_final_run(study)
    for id, then in (("e", "f"), ("f", "g")):
        desk.conductor.ended(id, None, "its node was lost")
        assert desk.take(then) == names
    desk.conductor.ended("g", None, "its node was lost")
    _given_up(desk, names[0], "failed 3 times; last: its node was lost")


def test_a_final_run_whose_workers_die_again_and_again_is_tried_when_the_study_goes_on(
    study: Study,
) -> None:
    desk, names = _in_final_run(study)
    died = Failed(message="failed 3 times; last: a worker died", crashed=True)
    desk.conductor.reported("e", died)
    desk.conductor.ended("e", died)
    _given_up(desk, names[0], died.message)


def test_a_trial_whose_workers_die_again_and_again_fails(study: Study) -> None:
    desk = Desk(study)
    desk.take("a")
    desk.conductor.ended("a", Failed(message="failed 3 times", crashed=True))
    assert isinstance(end := desk.events[-1], TrialEnd)
    assert (end.state, end.message) == ("failed", "failed 3 times")


def _in_final_run(study: Study) -> tuple[Desk, list[str]]:
    """A study whose trials have ended, and the final run that process "e" has begun."""
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id)
    return desk, desk.take("e")


def _given_up(desk: Desk, name: str, reason: str) -> None:
    """The final run `name` is not started again now, but when the study is resumed."""
    study, last = desk.conductor.study, desk.events[-1]
    assert isinstance(last, Restart)
    assert (last.run, last.reason, last.again) == (name, reason, False)
    assert not StudyView.read(study.directory).finals
    assert desk.take("z") != [name]
    assert name in Desk(study).take(*"ijkl")


def test_a_trial_of_an_earlier_sitting_ends_with_the_time_budget(study: Study) -> None:
    desk = Desk(dataclasses.replace(study, time_budget_s=0.2))
    desk.take("a", "b")
    desk.end("a", 40)
    desk.report("b", 10)
    time.sleep(0.25)
    desk.report("b", 20)  # killed here
    EventLog(study.events).append(study_event(study))
    later = Desk(dataclasses.replace(study, time_budget_s=0.2))
    later.take("c")
    view = StudyView.read(study.directory)
    assert [(t.state, t.message) for t in view.trials] == [
        ("complete", ""), ("pruned", "time budget")
    ]  # fmt: skip


def test_what_stands_by_makes_room_for_a_run_that_lost_its_node(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b", "c", "d")
    for id in "abc":
        desk.end(id)
    assert desk.take("e") == ["standby"]
    assert not desk.conductor.expired("e")  # d trains
    desk.conductor.without_process = {"d", "e"}
    assert desk.conductor.expired("e")
    desk.conductor.ended("e", None)
    desk.conductor.without_process = set()
    assert desk.take("f") == ["standby"]
    desk.end("d")
    assert desk.take("g") != ["standby"]


def test_no_finished_trial_is_an_error(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abcd":
        desk.end(id, 10)
    with pytest.raises(NoTrialFinished, match="none of 4 trials reached step 40"):
        desk.take("e")


def test_a_resumed_study_hands_out_interrupted_trials_first(study: Study) -> None:
    before = Desk(study)
    before.take(*"abc")
    before.report("a", 10, 0.4)
    before.end("b", 40, 0.6)
    before.report("c", 10, 0.5)
    checkpoint = study.trial_directory(2) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("")
    (checkpoint.parent / "report.json").write_text("{}")
    after = Desk(study)
    assert after.take("x", "y", "z", "w") == [
        "trials/00000", "trials/00002", "trials/00003", "standby"
    ]  # fmt: skip
    assert after.jobs["x"].config == before.jobs["a"].config
    assert after.jobs["y"].reported_step == 10
    starts = [e for e in after.events if isinstance(e, TrialStart)]
    assert [e.from_step for e in starts] == [0, 10, 0]  # trial 0 lost its checkpoint


def test_a_trial_that_was_to_stop_does_not_start_again(study: Study) -> None:
    before = Desk(study)
    before.take(*"ab")
    before.report("a", 10, 0.4)
    before.report("b", 10, 0.3)
    assert before.conductor.expired("b")
    after = Desk(study)
    assert after.take("x", "y") == ["trials/00000", "trials/00002"]
    assert [t.state for t in after.conductor.view.trials] == ["running", "pruned", "running"]


def test_unfinished_trials_leave_no_checkpoint(study: Study) -> None:
    desk = Desk(study)
    desk.take("a", "b")
    for id in "ab":
        desk.jobs[id].path.mkdir(parents=True)
        (desk.jobs[id].path / CHECKPOINT).write_text("")
    desk.end("a", 40)
    desk.end("b", 20)
    assert (desk.jobs["a"].path / CHECKPOINT).exists()
    assert not (desk.jobs["b"].path / CHECKPOINT).exists()


def test_the_time_budget_counts_search_trials_of_all_runs(study: Study) -> None:
    final = FinalReport(
        time=150, arm="best", role="test", seed=0, params={}, decode={}, step=40, metrics={}
    )
    assert searched_seconds([
        study_start(time=0), TrialStart(time=1, trial=0, params={}), made_report(time=5),
        StudyEnd(time=90, state="interrupted"), study_start(time=100),
        TrialStart(time=101, trial=0, params={}), TrialEnd(time=103, trial=0, state="pruned"),
        final, study_start(time=200),
    ]) == 5 + 3  # fmt: skip
    desk = Desk(dataclasses.replace(study, time_budget_s=0.2))
    assert desk.take("a", "b") == ["trials/00000", "trials/00001"]
    desk.report("a", 10)
    assert not desk.conductor.expired("a")
    time.sleep(0.25)
    assert desk.conductor.expired("a")
    desk.end("a", 20)
    assert desk.take("c") == ["standby"]
    desk.end("b", 40)
    assert desk.take("d", "e") == ["final/best_seed0", "final/best_seed1"]
    assert not desk.conductor.expired("d")
    view = StudyView.read(study.directory)
    assert [(t.state, t.message) for t in view.trials] == [
        ("pruned", "time budget"), ("complete", "")
    ]  # fmt: skip


def test_a_search_is_over_once_final_runs_are_known(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    for id in "abc":
        desk.end(id)
    desk.end("d", 10)
    desk.take("e")
    desk.end_final("e")
    more = dataclasses.replace(study, num_trials=9)
    assert Desk(more).take("x")[0].startswith("final/")


def test_halving_stops_trials_but_not_the_defaults(study: Study) -> None:
    desk = Desk(study)
    desk.take(*"abcd")
    stopped = {}
    for id, value in (("b", 0.5), ("c", 0.4), ("d", 0.6), ("a", 0.1)):
        desk.report(id, 10, value)
        stopped[id] = desk.conductor.expired(id)
    assert stopped == {"b": False, "c": True, "d": False, "a": False}
    later = Desk(dataclasses.replace(study, num_trials=5))  # a resumed study knows the reports
    assert later.take(*"wxyz")[3] == "trials/00004"
    later.report("z", 10, 0.42)
    assert later.conductor.expired("z")
