"""Several workers a trial: what is said through the mailbox, and that workers stand and recover."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from made_events import reported
from small_study import small_study

from ptal_ray.backends.ray import mailbox as mailboxes
from ptal_ray.backends.ray.mailbox import GO, LEAVE, STOP, WAIT, Mailbox
from ptal_ray.backends.ray.runner import run_study
from ptal_ray.study.event_types import Event, Report, TrialEnd
from ptal_ray.study.events import read_events
from ptal_ray.study.results import MOST_ATTEMPTS, Failed
from ptal_ray.study.study import trial_config
from ptal_ray.study.view import StudyView
from ptal_ray.training.stages import start


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "PATIENCE_S", 0.05)


def talk(conversation: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(conversation, 5.0))


def test_a_job_goes_back_and_forth() -> None:
    async def conversation() -> None:
        box = Mailbox()
        assert await box.take(0) is None  # nothing yet: asks again
        await box.post("job 1")
        assert await box.take(0) == (1, "job 1")
        asked = asyncio.create_task(box.next())
        await asyncio.sleep(0)
        await box.report(1, reported(10))
        assert await asked == reported(10)
        assert await box.decision(1) == WAIT  # the driver thinks
        asked = asyncio.create_task(box.next())
        await asyncio.sleep(0)
        assert await box.decision(1) == GO
        await box.report(1, reported(30, done=True))
        assert await asked == reported(30, done=True)
        assert await box.decision(1) == LEAVE
        assert await box.take(1) is None
        await box.post(STOP)
        assert await box.take(1) == (2, STOP)

    talk(conversation())


def test_a_stopped_job_is_left_and_its_late_reports_are_ignored() -> None:
    async def conversation() -> None:
        box = Mailbox()
        await box.post("job 1")
        number, _ = await box.take(0) or (0, "")
        await box.report(number, reported(10))
        assert await box.next() == reported(10)
        waiting = asyncio.create_task(box.decision(number))
        await asyncio.sleep(0)
        await box.post("job 2")
        assert await waiting == LEAVE
        await box.report(number, reported(30))  # of job 1
        assert await box.take(number) == (2, "job 2")
        asked = asyncio.create_task(box.next())
        await box.report(2, reported(11))
        assert await asked == reported(11)

    talk(conversation())


def test_workers_that_die_take_the_job_again_but_not_forever() -> None:
    async def conversation() -> None:
        box = Mailbox()
        await box.post("job 1")
        for _ in range(MOST_ATTEMPTS):
            assert await box.take(0) == (1, "job 1")
            await box.crashed(1, "ValueError: no")
        assert await box.take(0) is None
        failed = await box.next()
        reason = f"failed {MOST_ATTEMPTS} times; last: ValueError: no"
        assert failed == Failed(message=reason, crashed=True)
        assert await box.take(0) is None
        await box.post("job 2")
        assert await box.take(0) == (2, "job 2")

    talk(conversation())


def test_deaths_between_which_a_job_gets_on_do_not_end_it() -> None:
    async def conversation() -> None:
        box = Mailbox()
        await box.post("job 1")
        assert await box.take(0) == (1, "job 1")
        for step in range(2 * MOST_ATTEMPTS):
            await box.report(1, reported(step))
            assert (await box.next()) == reported(step)
            assert await box.take(0) == (1, "job 1")
            await box.report(1, reported(step))  # sent again from its checkpoint
            assert (await box.next()).note == "a worker died"

    talk(conversation())


def test_an_end_of_the_workers_ends_the_job() -> None:
    async def conversation() -> None:
        box = Mailbox()
        await box.post("job 1")
        asked = asyncio.create_task(box.next())
        await asyncio.sleep(0)
        await box.fail("Ray Train stopped")
        await box.fail("again")
        assert (await asked).message == "Ray Train stopped"

    talk(conversation())


@pytest.fixture(scope="module")
def study_of_two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study with two workers a trial; one of trial 0 is killed, later the trial's own process."""
    study = small_study(
        tmp_path_factory.mktemp("two"), "resources.workers=2", "budget.trials=3",
        "budget.max_steps=40", "final.seeds=1", "final.top=1",
        method="apn",  # its steps are slow enough to be interrupted
    )  # fmt: skip
    killed: dict[int, float] = {}
    names = {10: "RayTrainWorker", 20: "StandingWorkers|ResourceTrainable"}

    def kill(event: Event) -> None:
        step = event.step if isinstance(event, Report) and event.trial == 0 else 0
        if step in names and step not in killed:
            killed[step] = time.time()
            threading.Thread(target=_kill, args=(names[step],)).start()

    run_study(study, listen=kill)
    return study, killed


def _kill(name: str) -> None:
    mine = psutil.Process().children(recursive=True)
    found = [p for p in mine if re.search(name, " ".join(p.cmdline() or [""]))]
    os.kill(found[-1].pid, signal.SIGKILL)


@pytest.mark.search
@pytest.mark.slow
def test_killed_processes_cost_no_step(study_of_two: Any) -> None:
    study, killed = study_of_two
    events = [e for e in read_events(study.events) if getattr(e, "trial", None) == 0]
    steps = [e.step for e in events if isinstance(e, Report)]
    assert list(dict.fromkeys(steps)) == [10, 20, 40]
    (end,) = [e for e in events if isinstance(e, TrialEnd)]
    assert end.state == "complete"
    for killed_at in killed.values():
        recovered = next(e.time for e in events if e.time > killed_at + 0.5)
        assert recovered - killed_at < 300  # not never
    view = StudyView.read(study.directory)
    assert view.counts["failed"] == 0
    assert [e.run for e in view.incidents] == ["trials/00000"] * 2


@pytest.mark.search
@pytest.mark.slow
def test_two_workers_give_the_results_of_one(study_of_two: Any) -> None:
    study, _ = study_of_two
    for seen in StudyView.read(study.directory).trials[:2]:
        alone = start(trial_config(study, seen.params))
        for found in seen.reports:
            expected = alone.advance()
            assert expected.step == found.step
            for name, value in expected.metrics.items():
                assert found.metrics[name] == pytest.approx(value, rel=5e-3, abs=5e-3), name


@pytest.mark.search
@pytest.mark.slow
def test_standing_workers_start_a_trial_at_once(study_of_two: Any) -> None:
    study, _ = study_of_two
    trials = StudyView.read(study.directory).trials
    first, *later = [t.reports[0].to_first_step_s or 0.0 for t in trials]
    assert 0 < min(later) < first / 4  # the first starts the workers
    assert not (study.directory / ".ray").exists()
    finals = StudyView.read(study.directory).finals
    assert [(f.role, f.arm) for f in finals] == [("test", "best"), ("test", "default")]
    assert all(Path(study.directory / f.detections).exists() for f in finals)
