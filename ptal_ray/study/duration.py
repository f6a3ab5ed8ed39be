"""Estimates the time of a search from a few training steps measured on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.part import spread, write_part
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.text import keep_random_embeddings
from ptal_ray.errors import PtalError
from ptal_ray.methods.method import load, with_values
from ptal_ray.methods.rules import selected
from ptal_ray.study.no_test_split import runs_after, runs_again
from ptal_ray.study.study import Study, trial_config
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import decode_settings
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

WHOLE_BATCH_S = 2.0  # a batch predicted to take longer is estimated from one video
STEPS = 3  # measured steps, after as many warm-up steps
REFRESH = 2 * STEPS  # steps between refreshes of the labels, so that one measured step refreshes
LEARN_S = 3.0  # training before measurements: an untrained model gives too many segments
LEARN_STEPS = 200
Range = tuple[float, float]  # the least and the most
LEARN = {"lr": 3e-3, "warmup": 0.0, "cosine": False}
DECODED = 4  # decode settings that are measured


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of the parts of a study.

    Args:
        step: an optimiser step of a trial.
        report: scoring and decoding the videos that select.
        before: all steps of the earlier stages of a trial.
    """

    step: float
    report: float
    before: float


def explained(study: Study, concurrent: int) -> dict[str, Any]:
    """The values of a study that are computed from its data, and its estimated time; JSON-able.

    Args:
        study: the study to run.
        concurrent: trials at a time.

    Returns:
        "rules": key, value and reason of each, empty if the space states everything; and "time":
        "text" and, where known, "low_s" and "high_s".
    """
    return {
        "rules": [asdict(one) for one in study.space.derived],
        "time": duration(study, concurrent),
    }


def duration(study: Study, concurrent: int) -> dict[str, Any]:
    """Seconds from the first trial to the last final run: once with the fastest measured steps and
    the most stopped trials, once with the slowest steps and no stopped trial."""
    on_gpu = study.space.resources.gpus_per_worker > 0
    if on_gpu and not torch.cuda.is_available():
        return {"text": "unknown: trials train on a GPU, and this machine has none to measure on"}
    try:
        fast, slow = measured(study, "cuda" if on_gpu else "cpu")
    except PtalError as error:
        return {"text": f"unknown: a step could not be measured ({error})"}
    concurrent = min(concurrent, study.num_trials)
    low = _total(study, fast, stopped=True) / concurrent
    high = _total(study, slow, stopped=False) / concurrent
    text = (
        f"{_span(spoken(low), spoken(high))}, {concurrent} trials at a time, at "
        f"{_span(_digits(fast.step), _digits(slow.step))} s a step and {_digits(slow.report)} s a "
        "report on this machine"
    )
    return {"text": text, "low_s": low, "high_s": high}


def spoken(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _digits(seconds: float) -> str:
    """Two significant digits, never an exponent above 1."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def _total(study: Study, costs: Costs, *, stopped: bool) -> float:
    """Seconds of a study, one trial at a time."""
    space, race = study.space, study.space.policy == "race"
    steps, reports = _trial_parts(study, stopped and not race)  # a race has a budget of full trials
    trials = study.num_trials * (steps * costs.step + reports * costs.report)
    seeds, again = space.final.seeds, runs_again(space, study.num_trials)
    has_test = bool(FeatureStore.open(study.store).ids("test"))
    after, _ = runs_after(space, has_test)
    run = space.budget.max_steps * costs.step + costs.report
    cells = study.num_folds if race else 1  # each has its own fold and seed, and so its own stages
    before = cells + seeds * bool(again) + (seeds if has_test else (after + 1) // 2)
    return trials + (again + after) * run + before * costs.before


def _trial_parts(study: Study, stopped: bool) -> tuple[float, float]:
    """Mean steps and reports of a trial; if `stopped`, each rung stops all but one in `eta`."""
    budget = study.space.budget
    steps, reports, share, last = 0.0, 0.0, 1.0, 0
    for rung in budget.report_steps:
        steps += share * (rung - last)
        reports += share
        share, last = (share / budget.eta if stopped else 1.0), rung
    return steps, reports


def measured(study: Study, device: str) -> tuple[Costs, Costs]:
    """The costs of the defaults, measured on as many videos as a batch needs: with the fastest and
    with the slowest measured steps."""
    store, config = FeatureStore.open(study.store), trial_config(study, {})
    number = max(int(config.train["batch_size"]), 4) + 2
    ids = spread(store, number)
    with tempfile.TemporaryDirectory() as folder, _threads(study.space.resources.cpus_per_worker):
        made = write_part(store, ids, Path(folder) / "store")
        few = replace(config, store=str(made), stages="", val_fraction=2 / max(len(ids), 4))
        step, trial = _step(few, study.space.resources.workers, device)
        select = selected(len(store.ids("train")), config.val_fraction)
        report = select * _video(trial, config)
        before = _before(few, device)
        fast, slow = (
            Costs(step=s, report=report, before=b) for s, b in zip(step, before, strict=True)
        )
    return fast, slow


def _step(config: TrialConfig, workers: int, device: str) -> tuple[Range, Trial]:
    """Seconds of a step of one worker (the workers share a batch), with labels refreshed at every
    step or at none, and the trial that was measured."""
    batch = max(int(config.train["batch_size"]) // workers, 1)
    trial, videos = _trial(config, 1, device), batch
    if batch > 1 and _seconds(trial)[1] * batch <= WHOLE_BATCH_S:
        trial, videos = _trial(config, batch, device), 1
    _learn(trial)
    low, high = _seconds(trial)
    return (low * videos, high * videos), trial


def _learn(trial: Trial) -> None:
    """Train for a while: some losses begin with the first refresh, and depend on its labels."""
    began = time.perf_counter()
    while time.perf_counter() - began < LEARN_S and trial.step < LEARN_STEPS:
        trial.train_step()
    while trial.step % REFRESH != STEPS:  # the first measured step refreshes
        trial.train_step()


def _trial(config: TrialConfig, batch: int, device: str) -> Trial:
    """A trial whose earlier stages train one step each."""
    method = load(config.method)
    train = config.train | {"batch_size": batch}
    train |= LEARN | {name: 1 for name in _stage_steps(config.method) if name in train}
    train |= {"refresh_every": REFRESH} if method.refresh else {}
    encoder = with_values(method.train_params, train).texts()
    if encoder:  # real text embeddings load slowly and do not change the speed of training
        keep_random_embeddings(FeatureStore.open(config.store), encoder)
    return start(replace(config, method=method.name, train=train, report_steps=(10**6,)), device)


def _stage_steps(name: str) -> Iterator[str]:
    """The parameters with the numbers of steps of a method's earlier stages."""
    while (stage := load(name).stage) is not None:
        yield stage.steps
        name = stage.method


def _before(config: TrialConfig, device: str) -> Range:
    """Seconds of the earlier stages of a trial."""
    method = load(config.method)
    if method.stage is None:
        return 0.0, 0.0
    hp = with_values(method.train_params, config.train)
    train, steps = asdict(method.stage.params(hp)), int(getattr(hp, method.stage.steps))
    before = replace(config, method=method.stage.method, train=train, decode={}, decode_domains={})
    (low, high), _ = _step(before, 1, device)
    earlier = _before(before, device)
    return steps * low + earlier[0], steps * high + earlier[1]


def _seconds(trial: Trial) -> Range:
    """Seconds of the fastest and of the slowest step after the warm-up steps."""
    taken = [_timed(trial, trial.train_step) for _ in range(2 * STEPS)][STEPS:]
    return min(taken), max(taken)


def _video(trial: Trial, config: TrialConfig) -> float:
    """Seconds to score a video and to decode it with every setting."""
    task, ids = trial.task, trial.task.score_ids[:1]
    (scores,) = trial.score(ids)  # compiles what is compiled, as the first decoding does
    scoring = _timed(trial, lambda: trial.score(ids))
    grid = stored_grid(task.store, ids[0], task.hp.resample_to)
    seconds = task.store.duration_s(ids[0])
    first = with_values(task.method.decode_params, config.decode)
    tried = decode_settings(first, config.decode_domains, DECODED, config.seed)
    each = [partial(task.method.decode, scores, grid, seconds, hp) for hp in tried]
    settings = config.decode_settings if config.decode_domains else 1
    return scoring + settings * float(np.mean([_again(trial, call) for call in each]))


def _again(trial: Trial, call: Callable[[], object]) -> float:
    """Seconds of the second call."""
    call()
    return _timed(trial, call)


def _timed(trial: Trial, call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    device = trial.worker.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Use as many threads as a worker of a trial."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
