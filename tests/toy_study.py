"""A method of one layer, and a study of it that takes seconds."""

from __future__ import annotations

import time

import numpy as np
from conftest import make_store
from toy_method import METHOD as TOY

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores
from ptal_ray.methods import method as methods
from ptal_ray.space.space import parse_space
from ptal_ray.study import start_end
from ptal_ray.study.event_types import Report, TrialEnd, TrialStart
from ptal_ray.study.events import EventLog
from ptal_ray.study.view import StudyView
from ptal_ray.training.config import TrialReport
from ptal_ray.training.decoding import decode_settings

SPACE = """
method: toy
dataset: tiny
policy: simple
selection: {metric: val, val_fraction: 0.3, decode_settings: 4}
budget: {trials: 6, min_steps: 2, max_steps: 8, eta: 2}
train: {lr: {loguniform: [1e-3, 1e-1]}, batch_size: 4}
decode: {threshold: {uniform: [0.1, 0.9]}}
final: {top: 2, seeds: 2}
"""


def space(*overrides):
    return parse_space(SPACE, name="toy_tiny", source="toy_tiny.yaml", overrides=overrides)


class FakeTrial:
    """A trial that trains nothing; `value` says what it reports."""

    def __init__(self, config, device, rank=0, world_size=1):
        self.config, self.step, self.first_step_at = config, 0, None
        self.scores, self.detections = [Scores(id="v", arrays={"a": np.zeros(2)})], {}

    @property
    def done(self):
        return self.step >= self.config.report_steps[-1]

    def advance(self):
        self.step = next(s for s in self.config.report_steps if s > self.step)
        self.first_step_at = time.time()
        value, decode = self.value(), self.config.decode | self.tuned
        number = len(decode_settings(
            space().decode_params(), self.config.decode_domains, self.config.decode_settings, 0
        ))  # fmt: skip
        return TrialReport(
            step=self.step, objective=value, metrics={f"{self.config.score_on}/mAP_avg": value},
            decode=decode, seconds=0.1, settings=(value,) * number,
        )  # fmt: skip

    tuned = {}  # what it says of decode parameters

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self.step))

    def save_model(self, path, decode):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(decode))

    def load(self, path):
        self.step = int(path.read_text())


def fill(study, objectives, **more):
    """A log of complete trials with these objectives."""
    log = EventLog(study.events)
    for number, value in enumerate(objectives):
        params = {"lr": more.get("lr", lambda n: 0.01 + n / 1000)(number)}
        log.append(TrialStart(trial=number, params=params, from_step=0))
        log.append(Report(trial=number, step=8, objective=value, metrics={}, seconds=1.0,
                   decode={"threshold": 0.1 * (number + 1)}))  # fmt: skip
        log.append(TrialEnd(trial=number, state="complete", message=""))
    return StudyView.read(study.directory)


def use_toy(monkeypatch):
    """Makes it the only method."""
    monkeypatch.setattr(methods, "load", lambda name: TOY)
    monkeypatch.setattr(methods, "names", lambda: ("toy",))
    for module in ("task", "whole_split"):
        monkeypatch.setattr(f"ptal_ray.training.{module}.load", lambda name: TOY)
    monkeypatch.setattr("ptal_ray.reporting.tested.load", lambda name: TOY)
    monkeypatch.setattr(start_end, "provenance", lambda: {"git_commit": "", "versions": {}})


def toy_store(folder):
    """What it learns from."""
    return FeatureStore.open(make_store(folder / "tiny", train=12, test=3))
