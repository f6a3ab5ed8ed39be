"""Recording a search: real trainings, resumable, the same whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_store
from small_study import small_space

from ptal_ray.benchmarks import recording
from ptal_ray.benchmarks.__main__ import main
from ptal_ray.benchmarks.recording import drawn, plan, record, trained
from ptal_ray.benchmarks.replay import replay
from ptal_ray.benchmarks.scorer import sealed_values
from ptal_ray.benchmarks.table import read_table
from ptal_ray.data.splits import kfold
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DivergedError
from ptal_ray.training.scoring import best_decoding
from ptal_ray.training.task import Task
from ptal_ray.training.trial import Trial

SIZES = {"configurations": 3, "folds": 2, "seeds": 2}
STEPS = ["budget.min_steps=1", "budget.max_steps=2", "selection.decode_settings=3",
         "decode.nms_tiou={uniform: [0.1, 0.9]}"]  # fmt: skip


@pytest.fixture
def space(tmp_path):
    return replace(small_space(*STEPS), dataset=str(make_store(tmp_path / "tiny", train=6)))


@pytest.fixture
def threads(monkeypatch):
    """Trains in this process."""

    @contextmanager
    def pool(workers):
        with ThreadPoolExecutor(workers) as made:
            yield made

    monkeypatch.setattr(recording, "process_pool", pool)


def values(out):
    """All that is recorded but the seconds."""
    return [pq.read_table(out / name).drop_columns("seconds").to_pylist()
            for name in ("cells.parquet", "test.parquet")]  # fmt: skip


def test_a_table_holds_every_training(space, tmp_path, threads):
    record(space, tmp_path / "out", workers=1, **SIZES)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cells.parquet", "table.json", "test.parquet",
    ]  # fmt: skip
    table = read_table(tmp_path / "out")
    assert table.objective.shape == (3, 2, 2, 2, 3) and table.steps.tolist() == [1, 2]
    assert sealed_values(tmp_path / "out", table).shape == (3, 3)
    assert np.ptp(table.objective) > 0 and (table.seconds > 0).all()
    cells, _ = plan(space, **SIZES)
    one = next(c for c in cells if (c.configuration, c.fold, c.seed) == (1, 1, 1))
    rows = trained(one.config)
    np.testing.assert_allclose(table.objective[1, 1, 1], [r["objective"] for r in rows])
    np.testing.assert_allclose(table.cross_fitted[1, 1, 1], [r["cross_fitted"] for r in rows])
    found = replay([tmp_path / "out"], ["simple", "random"], searches=10, budget=4, workers=1)
    assert found["tables"]["out"].keys() == {"simple", "random"}


def test_a_quick_recording_of_one_seed_is_replayed_once(space, tmp_path, threads, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(space.to_yaml())
    words = ["--configurations", "2", "--folds", "2", "--seeds", "1", "--workers", "1"]
    assert main(["record", "small.yaml", *words, "--out", "out"]) == 0
    assert main(["replay", "out", "--searches", "1", "--workers", "1", "--json"]) == 0


def test_the_trainings_are_those_of_a_search(space):
    cells, about = plan(space, **SIZES)
    assert about["configurations"][0] == {} and about["configurations"] == drawn(space, 3)
    assert len(cells) == 3 * (2 + 1) * 2 and [c.seed for c in cells] == [0] * 9 + [1] * 9
    store = FeatureStore.open(space.dataset)
    folds = kfold(store, 2, space.selection.fold_seed)
    for cell in cells:
        config = cell.config
        assert config.seed == cell.seed and config.fold_seed == space.selection.fold_seed
        assert config.train == space.resolve_train(about["configurations"][cell.configuration])
        if cell.fold < 0:
            assert (config.fit_on, config.score_on, config.report_steps) == ("train", "test", (2,))
        else:
            assert (config.num_folds, config.fold, config.score_on) == (2, cell.fold, "val")
            assert Task.of(config).score_ids == folds[cell.fold]


def test_configurations_are_random_points_of_the_space(space):
    many = drawn(space, 200)
    assert many[:50] == drawn(space, 50)
    for own in many[1:]:
        assert all(domain.contains(own[name]) for name, domain in space.train.items())
    rate = np.log10([own["lr"] for own in many[1:]])
    assert abs(rate.mean() + 2.5) < 0.1 and rate.min() < -2.95 and rate.max() > -2.05


def test_configurations_that_can_be_counted_come_once(space):
    few = replace(space, train={k: d for k, d in space.train.items() if k == "weight_decay"})
    found = [few.train_defaults() | own for own in drawn(few, 9)]
    values = [own["weight_decay"] for own in found]
    assert len(set(values)) == len(values) and {1e-5, 1e-4} <= set(values)


def test_every_training_tries_the_same_decode_settings(space):
    cells, about = plan(space, **SIZES)
    for cell in cells[:: len(cells) - 1]:
        trial = recording.start(cell.config)
        tried = best_decoding(
            trial.task, trial.score(trial.task.score_ids), lambda: float("nan")
        ).table
        assert [setting for setting, _ in tried] == about["settings"]


def test_an_interrupted_recording_goes_on(space, tmp_path, threads, monkeypatch):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(space, tmp_path / "out", workers=1, progress=interrupt, **SIZES)
    begun = len(list((tmp_path / "out" / ".cells").glob("*.json")))
    assert begun >= 4 and not (tmp_path / "out" / "test.parquet").exists()
    ran = []
    monkeypatch.setattr(recording, "trained", lambda config: ran.append(config) or trained(config))
    record(space, tmp_path / "out", workers=1, **SIZES)
    assert len(ran) == 18 - begun
    record(space, tmp_path / "whole", workers=1, **SIZES)
    assert values(tmp_path / "out") == values(tmp_path / "whole")


def test_a_finished_recording_is_left_as_it_is(space, tmp_path, threads):
    record(space, tmp_path / "out", workers=1, **SIZES)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    record(space, tmp_path / "out", workers=1, **SIZES)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ConfigError, match="recording with other seeds; repeat its flags"):
        record(space, tmp_path / "out", workers=1, **SIZES | {"seeds": 3})


def test_a_recording_may_end_with_fewer_seeds(space, tmp_path, threads):
    def interrupt(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(space, tmp_path / "out", workers=1, progress=interrupt, **SIZES | {"seeds": 3})
    record(space, tmp_path / "out", workers=1, **SIZES)
    record(space, tmp_path / "whole", workers=1, **SIZES)
    assert values(tmp_path / "out") == values(tmp_path / "whole")


def test_another_recording_is_refused(space, tmp_path, threads):
    def interrupt(done, total):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        record(space, out, workers=1, progress=interrupt, **SIZES)
    for other, sizes, key in (
        (space, SIZES | {"folds": 3}, "folds"),
        (replace(space, budget=replace(space.budget, max_steps=3)), SIZES, "space, steps"),
        (replace(space, dataset=str(make_store(tmp_path / "b", seed=1))), SIZES, "data_hash"),
    ):
        with pytest.raises(ConfigError, match=rf"other .*{key}.*; repeat its flags, or choose"):
            record(other, out, workers=1, **sizes)


def test_other_files_are_left_alone(space, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds other files; choose a new folder"):
        record(space, tmp_path / "out", workers=1, **SIZES)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_training_that_diverges_has_no_value_from_there_on(space, tmp_path, threads, monkeypatch):
    until = Trial.train_until

    def diverges(trial, step):
        if trial.task.config.fold == 1 and step == 2:
            raise DivergedError("loss: nan")
        return until(trial, step)

    monkeypatch.setattr(Trial, "train_until", diverges)
    record(space, tmp_path / "out", workers=1, **SIZES)
    rows = pq.read_table(tmp_path / "out" / "cells.parquet").to_pylist()
    for row in rows:
        assert np.isnan(row["objective"]).all() == ((row["fold"], row["step"]) == (1, 2))
    assert (read_table(tmp_path / "out").objective[:, 1, :, -1] == 0).all()


def test_a_configuration_that_cannot_be_trained_counts_as_diverged(
    space, tmp_path, threads, monkeypatch
):
    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    def refused(config, *more):
        if config.train["lr"] == worst:
            raise ConfigError("train.lr: is not good")
        return start(config, *more)

    worst, start = plan(space, **SIZES)[0][1].config.train["lr"], recording.start
    monkeypatch.setattr(recording, "start", refused)
    with pytest.raises(KeyboardInterrupt):
        record(space, tmp_path / "out", workers=1, progress=interrupt, **SIZES)
    notes = []
    record(space, tmp_path / "out", workers=1, note=notes.append, **SIZES)
    assert notes == ["configuration 1 counts as diverged: train.lr: is not good"]
    found = read_table(tmp_path / "out").objective
    assert not found[1].any() and found[[0, 2]].any(axis=-1).all()
    worst = space.train_defaults()["lr"]
    with pytest.raises(ConfigError, match=r"train.lr: is not good"):
        record(space, tmp_path / "none", workers=1, **SIZES)


BEGINS = """
import os, sys
from pathlib import Path
from ptal_ray.benchmarks.recording import _begun

def hook(event, given):
    global due
    if event in ("open", "os.mkdir", "os.rename") and str(folder) in str(given[0]):
        due -= 1
        if due < 0:
            os._exit(9)  # as a kill: nothing is tidied up

for number in range(20):
    folder, due = Path(sys.argv[1], str(number)), number
    child = os.fork()
    if not child:
        sys.addaudithook(hook)
        os._exit(0 if _begun(folder, {"version": 1}) else 1)
    killed = os.waitpid(child, 0)[1] != 0
    assert _begun(folder, {"version": 1}), "the same command goes on"
    print(killed, *sorted(path.name for path in folder.iterdir()))
    if not killed:
        break
"""


def test_a_recording_that_is_killed_as_it_begins_can_be_repeated(tmp_path):
    done = subprocess.run([sys.executable, "-c", BEGINS, str(tmp_path)], capture_output=True,
                          text=True, check=True)  # fmt: skip
    *killed, last = done.stdout.splitlines()
    assert len(killed) >= 4 and set(killed) == {"True .cells table.json"}
    assert last == "False .cells table.json"


def test_a_killed_recording_goes_on(space, tmp_path, threads, monkeypatch):
    """Killed from outside, with its processes; then finished, the same as if nothing happened."""
    (tmp_path / "small.yaml").write_text(space.to_yaml())
    words = ["record", "small.yaml", "--configurations", "3", "--folds", "2", "--seeds", "2"]
    words += ["--workers", "1", "--out", "out"]
    command = [sys.executable, "-m", "ptal_ray.benchmarks", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    cells, limit = tmp_path / "out" / ".cells", time.monotonic() + 240
    while not list(cells.glob("*.json")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "test.parquet").exists()
    kept = json.loads(next(cells.glob("*.json")).read_text())
    assert len(kept["rows"]) in (1, 2)
    record(space, tmp_path / "whole", workers=1, **SIZES)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    assert values(tmp_path / "out") == values(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [(["none", "--out", "x"], 2, "search space 'none' is unknown"),
     (["small.yaml", "--out", "x", "--folds", "9"], 3, "9 folds of 6 training videos"),
     (["small.yaml", "--out", "x", "--dataset", "nowhere"], 3, "nowhere")],
)  # fmt: skip
def test_what_cannot_be_recorded(space, tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(space.to_yaml())
    assert main(["record", *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("flag", "message"), [("--seeds=0", "0: must be a whole number of at least 1"),
                          ("--folds=1", "1: must be a whole number of at least 2"),
                          ("--configurations=-3", "-3: must be a whole number of at least 2")]
)  # fmt: skip
def test_flags_of_record(flag, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(["record", "any", "--out", "x", flag])
    assert left.value.code == 2 and message in capsys.readouterr().err
