"""What goes wrong in the middle of a study costs no finished trial, and the report says it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from small_study import small_study

from ptal_ray.backends.ray.runner import run_study
from ptal_ray.benchmarks.dummy import many_cpus
from ptal_ray.errors import DataError
from ptal_ray.reporting.report import write_report
from ptal_ray.study.event_types import Event, FinalReport, Report, Restart, TrialEnd
from ptal_ray.study.events import read_events
from ptal_ray.study.run_folder import CHECKPOINT
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray for all studies: it takes seconds to start."""
    with many_cpus(2) as address:
        yield address


class Saboteur:
    """Does something to a study at its first reports, one thing a report.

    The process of the trial waits meanwhile: it trains on when its report has been taken.
    """

    def __init__(self, *deeds: Callable[[int], None]) -> None:
        self.deeds = list(deeds)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Report) and self.deeds and event.step < 40:
            self.deeds.pop(0)(event.trial)


def trial_process() -> psutil.Process:
    """The process that trains."""
    mine = psutil.Process().children(recursive=True)
    (found,) = (p for p in mine if "TrialProcess" in " ".join(p.cmdline() or [""]))
    return found


def kill(trial: int) -> None:
    process = trial_process()
    process.kill()
    process.wait()


def counted_once(study: Study, trials: int) -> StudyView:
    """Every trial ended once, and every final run is there."""
    events = read_events(study.events)
    ends = [e.trial for e in events if isinstance(e, TrialEnd)]
    assert sorted(ends) == list(range(trials))
    view = StudyView.from_events(events)
    assert view.end and view.end.state == "done"
    finals = [(e.role, e.arm, e.seed) for e in events if isinstance(e, FinalReport)]
    assert len(finals) == len(set(finals)) > 0
    return view


def test_a_killed_trial_process_and_a_damaged_checkpoint(address: str, tmp_path: Path) -> None:
    """The process of a trial is killed; before it is back its checkpoint is overwritten."""
    study = small_study(tmp_path, "final.seeds=1", "budget.trials=3", max_concurrent=1)

    def kill_and_damage(trial: int) -> None:
        kill(trial)
        path = study.trial_directory(trial) / CHECKPOINT
        path.write_bytes(path.read_bytes()[:100] + b"damage")

    saboteur = Saboteur(kill, kill_and_damage)
    run_study(study, address=address, listen=saboteur)
    assert not saboteur.deeds
    view = counted_once(study, 3)
    reasons = [e.reason for e in view.incidents if isinstance(e, Restart)]
    assert len(reasons) == 3  # a kill; a kill and the checkpoint
    assert "damaged" in reasons[-1]
    text = (write_report(study.directory, tmp_path / "reports") / "REPORT.md").read_text()
    assert "## Incidents" in text and "damaged" in text
    same = StudyView.from_events(e for e in read_events(study.events) if not isinstance(e, Restart))
    assert same.trials == view.trials


def test_a_trial_without_memory_is_tried_again(address: str, tmp_path: Path) -> None:
    """The operating system refuses more memory to the process of a trial."""
    study = small_study(
        tmp_path, "final.seeds=1", "budget.trials=3", max_concurrent=1, method="apn"
    )

    def starve(trial: int) -> None:
        process = trial_process()
        limit = process.memory_info().vms
        process.rlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    run_study(study, address=address, listen=Saboteur(starve))
    view = counted_once(study, 3)
    said = [e.reason for e in view.incidents if isinstance(e, Restart)]
    assert said, "no restart is told of"


def test_damaged_data_stops_a_study_that_goes_on_once_it_is_mended(
    address: str, tmp_path: Path
) -> None:
    study = small_study(tmp_path, "final.seeds=1", "budget.trials=3", max_concurrent=1)
    features = study.store / "features.arrow"
    whole = features.read_bytes()

    def damage(trial: int) -> None:
        kill(trial)
        features.write_bytes(whole[:-100])

    with pytest.raises(DataError, match="features.arrow"):
        run_study(study, address=address, listen=Saboteur(damage))
    stopped = read_events(study.events)
    assert stopped[-1].state == "interrupted"
    assert "features.arrow" in stopped[-1].message
    assert not [e for e in stopped if isinstance(e, TrialEnd)]

    middle = len(whole) // 2
    features.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(DataError, match="does not match its hash"):
        run_study(study, address=address)
    assert read_events(study.events) == stopped

    features.write_bytes(whole)
    run_study(study, address=address)
    view = counted_once(study, 3)
    assert [t.state for t in view.trials].count("failed") == 0


def test_the_same_study_twice_is_the_same(address: str, tmp_path: Path) -> None:
    """Suggestions and every number; the clock alone differs."""
    seen = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        study = small_study(
            tmp_path / name, "final.seeds=1", "budget.trials=3", max_concurrent=1, seed=3
        )
        run_study(study, address=address)
        view = counted_once(study, 3)
        trials = [
            (t.params, [(r.step, r.objective, r.metrics) for r in t.reports]) for t in view.trials
        ]
        finals = [(f.role, f.arm, f.seed, f.metrics, f.decode) for f in view.finals]
        seen.append((trials, finals))
    assert seen[0] == seen[1]
