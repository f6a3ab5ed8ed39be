"""Room for a study: known before it starts; a disk that fills up leaves what was there whole."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import HANG_S, make_store
from made_events import report, study_start
from small_study import small_study
from test_search_cli import gone, lay_out, started, wait_for
from test_stages import scores

from ptal_ray import search
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, StorageError, full_storage_named
from ptal_ray.policy.optuna_searcher import JOURNAL, _Journal
from ptal_ray.study.event_types import Report, TrialEnd
from ptal_ray.study.events import EventLog, read_events
from ptal_ray.study.flags import parse
from ptal_ray.study.footprint import check_room, footprint, size
from ptal_ray.study.from_flags import planned
from ptal_ray.study.run_folder import CHECKPOINT, MODEL, SCORES
from ptal_ray.study.study import trial_config
from ptal_ray.training.checkpoint import write_checkpoint
from ptal_ray.training.decoding import write_scores
from ptal_ray.training.stages import start

pytestmark = pytest.mark.usefixtures("machine")


def test_the_footprint_is_known_before(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    need = footprint(study, FeatureStore.open(study.store), concurrent=3)
    trial = start(dataclasses.replace(trial_config(study, {}), report_steps=(4,)))
    trial.advance()
    trial.save(tmp_path / CHECKPOINT)
    write_scores(tmp_path / SCORES, trial.scores)
    assert need.checkpoint == pytest.approx((tmp_path / CHECKPOINT).stat().st_size, rel=0.1)
    assert need.scores == pytest.approx((tmp_path / SCORES).stat().st_size, rel=0.1)
    assert need.checkpoints == 2 + 2 * 3 + 2 * 2 + 2 * 2
    raced = dataclasses.replace(study, space=dataclasses.replace(study.space, policy="race"))
    fewer = footprint(raced, FeatureStore.open(study.store), concurrent=3)
    assert fewer.checkpoints == need.checkpoints - 2 * 2  # a race trains no candidate again
    assert need.trials == 4
    trial.save_model(tmp_path / MODEL, trial.task.config.decode)
    assert need.model == pytest.approx((tmp_path / MODEL).stat().st_size, rel=0.1)
    assert need.models == 2 * 2
    assert [size(n) for n in (7, 12_340_000, 5 * 10**13)] == ["7 B", "12.3 MB", "50 TB"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fills a file system up to `leave` bytes; returns the file that does."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    free = shutil.disk_usage(disk).free - leave
    with contextlib.suppress(OSError):  # a search takes room at the same time
        filler.write_bytes(b"x" * free)
    return filler


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    log = EventLog(small_disk / "events.jsonl")
    log.append(study_start())
    write_checkpoint(small_disk / CHECKPOINT, "a", {"step": 1})
    filler = fill(small_disk)
    with pytest.raises(StorageError, match=r"storage full: .*events\.jsonl .*--resume"):
        for number in range(1000):  # the last page has room for some
            log.append(report(number, decode={"text": "x" * 500}))
    number = len(read_events(log.path))
    big = {"weights": torch.zeros(100_000)}
    with (
        pytest.raises(StorageError, match=f"storage full: {small_disk} .*--resume"),
        full_storage_named(small_disk),
    ):
        write_checkpoint(small_disk / CHECKPOINT, "a", big)
    with pytest.raises(OSError, match="No space left"):
        write_scores(small_disk / SCORES, scores(1).scores * 5000)
    assert sorted(p.name for p in small_disk.iterdir()) == [CHECKPOINT, "events.jsonl", "filler"]
    filler.unlink()
    EventLog(log.path).append(report())
    assert len(read_events(log.path)) == number + 1
    write_checkpoint(small_disk / CHECKPOINT, "a", big)


def test_a_study_that_cannot_fit_does_not_start(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lay_out(tmp_path, make_store(tmp_path / "tiny", train=9))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["small.yaml", "--storage", "disk/studies", "--dry-run", "--json"]
    assert search.main([*words, "--set", "resources.workers=1"]) == 0
    plan = json.loads(capsys.readouterr().out)["storage"]
    assert plan["free_bytes"] == shutil.disk_usage(small_disk).free
    assert f"at most {size(plan['most_bytes'])} at once" in plan["text"]
    assert search.main([*words, "--num-trials", "10000"]) == 2
    error = capsys.readouterr().err
    assert "disk: 5.24 MB are free, but the study needs" in error
    assert "lower --keep-checkpoints" in error
    assert not list(small_disk.iterdir())
    (small_disk / "study").mkdir()
    filler = fill(small_disk)
    need = footprint(*planned(parse(["small.yaml"]))[:2], concurrent=1)
    with pytest.raises(ConfigError, match="are free, but"):
        check_room(need, small_disk / "study")
    filler.rename(small_disk / "study" / "what it has already")
    check_room(need, small_disk / "study")


def test_a_journal_on_a_full_disk_ends_with_a_whole_line(small_disk: Path) -> None:
    journal = _Journal(small_disk / JOURNAL)
    fill(small_disk, leave=8192)
    with pytest.raises(OSError, match="No space left"):
        for number in range(1000):
            journal.append_logs([{"number": number, "text": "x" * 500}])
    lines = journal.path.read_bytes()
    assert lines.endswith(b"}\n")
    assert [e["number"] for e in journal.read_logs(0)] == list(range(lines.count(b"\n")))


@pytest.mark.cluster
@pytest.mark.slow
def test_a_search_whose_disk_fills_up_goes_on_after_room_is_made(
    small_disk: Path, tmp_path: Path
) -> None:
    """Its data has no test split."""
    overrides = ("budget.max_steps=160", "final.seeds=1", "final.top=1", "budget.trials=3")
    lay_out(tmp_path, make_store(tmp_path / "tiny", train=9, test=0), *overrides)
    first = started(tmp_path, "small.yaml", "--storage", "disk/studies")
    studies = small_disk / "studies"
    wait_for(studies, lambda events: any(isinstance(e, Report) for e in events))
    filler = fill(small_disk)
    _, said = first.communicate(timeout=HANG_S)
    assert first.returncode == 1, said
    line = said.strip().splitlines()[-1]
    assert "storage full: " in line
    assert "free space and continue with --resume: python -m ptal_ray.search --resume" in line
    assert gone(tmp_path)
    (directory,) = studies.iterdir()
    before = read_events(directory / "events.jsonl")
    assert not [e for e in before if isinstance(e, TrialEnd) and e.state == "failed"]
    filler.unlink()
    again = started(tmp_path, "--resume", str(directory))
    told, said = again.communicate(timeout=HANG_S)
    assert again.returncode == 0, said
    assert "cross-validated mAP" in told
    events = read_events(directory / "events.jsonl")
    assert events[: len(before)] == before
    ends = [e.trial for e in events if isinstance(e, TrialEnd)]
    assert sorted(ends) == list(range(3))
