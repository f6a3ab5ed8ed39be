"""What earlier stages leave is made once, whoever asks, and never half there."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trial import config

from ptal_ray.data.types import Scores
from ptal_ray.errors import DataError
from ptal_ray.methods.method import StageResult, load, names
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import read_scores
from ptal_ray.training.stage_cache import entry, stage_result
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial
from ptal_ray.training.worker import Worker

STAGED = sorted(n for n in names() if load(n).stage is not None)


def key(store: Path, stages: Path | str) -> tuple[TrialConfig, str, tuple[str, ...]]:
    return config(store, "lacp", stages=str(stages)), "hash", ("a", "b")


def scores(value: float) -> StageResult:
    made = [Scores(id=i, arrays={"score": np.full(3, value)}) for i in ("a", "b")]
    return StageResult(scores=made, weights={"w": torch.full((2,), value)})


@pytest.mark.parametrize("method", STAGED)
def test_who_watches_is_told_of_each_stage_that_trains(
    store: Path, tmp_path: Path, method: str
) -> None:
    seen: list[tuple[str, int, int, int]] = []

    @contextmanager
    def watch(trial: Trial, last: int, what: str) -> Iterator[None]:
        first = trial.step
        yield
        seen.append((what, first, trial.step, last))

    own = config(store, method, stages=str(tmp_path / "kept"))
    start(own, watch=watch)
    assert seen
    for what, first, step, last in seen:
        assert load(what.removeprefix("stage ")) and (first, step) == (0, last)
    start(own, watch=watch)  # found where it is kept
    assert len(seen) == len({what for what, *_ in seen})


@pytest.mark.parametrize("method", STAGED)
def test_the_seconds_of_a_trial_include_its_earlier_stages(
    store: Path, tmp_path: Path, method: str
) -> None:
    own, began = config(store, method, stages=str(tmp_path / "kept")), time.perf_counter()
    first = start(own)
    took = time.perf_counter() - began
    assert took / 2 < first.seconds <= took
    assert start(own).seconds < first.seconds  # read from the folder


def test_it_is_made_once_and_read_back(store: Path, tmp_path: Path) -> None:
    calls = []

    def made() -> StageResult:
        calls.append(1)
        return scores(len(calls))

    first = stage_result(key(store, tmp_path / "new"), made, Worker())
    again = stage_result(key(store, tmp_path / "new"), made, Worker())
    assert len(calls) == 1
    assert [s.id for s in again.scores] == [s.id for s in first.scores] == ["a", "b"]
    assert again.weights["w"].tolist() == [1, 1]
    assert again.scores[1].arrays["score"].tolist() == [1, 1, 1]
    stage_result(key(store, ""), made, Worker())
    assert len(calls) == 2  # without a folder nothing is kept


def test_another_configuration_seed_data_or_split_is_another_entry(
    store: Path, tmp_path: Path
) -> None:
    one, data, ids = key(store, tmp_path)
    others = [
        (dataclasses.replace(one, seed=1), data, ids),
        (dataclasses.replace(one, train=one.train | {"lr": 0.5}), data, ids),
        (dataclasses.replace(one, report_steps=(9,)), data, ids),
        (dataclasses.replace(one, method="apn"), data, ids),
        (dataclasses.replace(one, precision="bf16"), data, ids),
        (one, "other", ids),
        (one, data, ("a",)),
    ]
    assert len({entry(k) for k in [(one, data, ids), *others]}) == 8
    # what comes after the stage does not matter to it
    assert entry((dataclasses.replace(one, decode_settings=7), data, ids)) == entry(
        (one, data, ids)
    )


def test_a_damaged_entry_says_what_to_do(store: Path, tmp_path: Path) -> None:
    where = key(store, tmp_path)
    stage_result(where, lambda: scores(1), Worker())
    path = entry(where)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged scores; delete the file"):
        stage_result(where, lambda: scores(2), Worker())


def _make(where: tuple[TrialConfig, str, tuple[str, ...]], marks: str, wait_s: float) -> None:
    def made() -> StageResult:
        (Path(marks) / str(os.getpid())).touch()
        time.sleep(wait_s)
        return scores(1)

    stage_result(where, made, Worker())


def test_others_wait_and_a_killed_maker_leaves_nothing(store: Path, tmp_path: Path) -> None:
    where, marks = key(store, tmp_path / "cache"), tmp_path / "marks"
    marks.mkdir()
    spawn = multiprocessing.get_context("spawn")
    killed = spawn.Process(target=_make, args=(where, str(marks), 600.0))
    killed.start()
    while not list(marks.iterdir()):
        time.sleep(0.05)
    others = [spawn.Process(target=_make, args=(where, str(marks), 0.5)) for _ in range(2)]
    for process in others:
        process.start()
    time.sleep(1.0)
    assert len(list(marks.iterdir())) == 1  # the others wait for it
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    for process in [killed, *others]:
        process.join(timeout=120)
    assert [p.exitcode for p in others] == [0, 0]
    assert len(list(marks.iterdir())) == 2  # one of them made it, the other found it
    path = entry(where)
    assert path is not None and sorted(p.suffix for p in path.parent.iterdir()) == [
        ".lock",
        ".npz",
        ".pt",
    ]


def chain(method: str) -> list[str]:
    """The stages before a method, the first one first."""
    stage = load(method).stage
    return [*chain(stage.method), stage.method] if stage else []


@pytest.mark.parametrize("method", STAGED)
def test_trials_share_a_stage_and_its_result_does_not_depend_on_that(
    store: Path, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = start(config(store, method))
    trained: list[str] = []
    plain = Trial.train_until

    def counted(self: Trial, step: int) -> dict[str, float]:
        trained.append(self.task.config.method)
        return plain(self, step)

    monkeypatch.setattr(Trial, "train_until", counted)
    shared = [
        start(config(store, method, stages=str(tmp_path), train={"lr": lr})) for lr in (1e-3, 1e-2)
    ]
    before = chain(method)
    assert before and trained == before
    for trial in shared:
        assert trial.batches.labels.tables is not None and alone.batches.labels.tables is not None
        for name, table in alone.batches.labels.tables.items():
            assert torch.equal(table, trial.batches.labels.tables[name])
    start(config(store, method, stages=str(tmp_path), seed=1))
    assert trained == before * 2


def other_value(field: dataclasses.Field[Any]) -> Any:
    """Another allowed value of a parameter than its default; None where any text is allowed."""
    if isinstance(field.default, bool):
        return not field.default
    allowed = field.metadata["allowed"]
    return next(v for v in allowed if v != field.default) if allowed else None


@pytest.mark.parametrize("method", STAGED)
def test_parameters_of_later_stages_change_nothing_in_an_earlier_one(
    store: Path, method: str
) -> None:
    number = len(chain(method))
    stage, hp = load(method).stage, start(config(store, method)).task.hp
    while stage is not None:
        number -= 1
        hp = stage.params(hp)
        late = [f for f in dataclasses.fields(hp) if f.metadata["since"] > number]
        own = {"lr", "weight_decay"}  # stages have their own, early_lr, ...
        other = {f.name: v for f in late if (v := other_value(f)) is not None}
        made = dataclasses.replace(
            config(store, method), method=stage.method, train=dataclasses.asdict(hp),
            decode={}, report_steps=(3,),
        )  # fmt: skip
        changed = {k: v for k, v in other.items() if k not in own}
        assert changed or type(hp) is not load(method).train_params
        one, two = (
            start(dataclasses.replace(made, train=made.train | new)) for new in ({}, changed)
        )
        assert one.train_until(3) == two.train_until(3)
        for a, b in zip(
            one.learner.judged.parameters(), two.learner.judged.parameters(), strict=True
        ):
            # The memory's alignment can change the last bit of a product on a CPU.
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        stage = load(stage.method).stage


def test_what_a_named_file_holds_is_part_of_the_entry(store: Path, tmp_path: Path) -> None:
    named = [f.name for f in dataclasses.fields(load("apl").train_params) if f.metadata["file"]]
    assert named
    file = tmp_path / "file.json"
    made = config(store, "apl", stages=str(tmp_path), train=dict.fromkeys(named, str(file)))
    entries = []
    for text in ("{}", "[]", "{}"):
        file.write_text(text)
        entries.append(entry((made, "hash", ())))
    assert entries[0] == entries[2] != entries[1]


@pytest.mark.parametrize("method", sorted(names()))
def test_making_a_trial_trains_nothing(
    store: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Trial] = []
    plain = Trial.train_step

    def counted(self: Trial) -> dict[str, torch.Tensor]:
        made.append(self)
        return plain(self)

    monkeypatch.setattr(Trial, "train_step", counted)
    trial = start(config(store, method))
    assert {t.task.method.name for t in made} == set(chain(method))
    made.clear()
    if not chain(method):
        Trial(trial.task)
    assert not made and trial.step == 0 and len(vars(trial)) <= 10


@pytest.mark.parametrize(
    ("method", "other"), [("apl", {"label_sigma": 0.9}), ("apl.apl_bmn", {"label_classes": 1})]
)
def test_predictions_are_made_once_for_trials_that_agree_in_their_rules(
    store: Path, method: str, other: dict[str, object], tmp_path: Path
) -> None:
    def kept() -> set[Path]:
        return set(tmp_path.glob("*supervised-*.npz"))

    def begin(**train: object) -> Trial:
        return start(config(store, method, stages=str(tmp_path), train=train))

    trial = begin()
    predictions = min(kept(), key=lambda path: path.stat().st_size)
    found = read_scores(predictions)
    assert {s.id for s in found} == set(trial.batches.split.ids) - set(trial.task.annotated)
    assert all(set(s.arrays) == {"start_s", "end_s", "label", "score"} for s in found)
    (scores,) = kept() - {predictions}
    scores.write_bytes(b"no longer read")
    again = begin(tau_pos_k=2.0)
    assert kept() == {predictions, scores}
    assert trial.batches.labels.tables is not None and again.batches.labels.tables is not None
    assert torch.equal(
        trial.batches.labels.tables["kind"] == 0, again.batches.labels.tables["kind"] == 0
    )
    assert len(list(tmp_path.glob("*supervised-*.pt"))) == 1  # weights are kept once
    with pytest.raises(DataError, match=scores.name):
        begin(**other)
