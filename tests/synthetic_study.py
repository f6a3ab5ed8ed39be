"""A study directory whose numbers are made up, written through EventLog as a real search does."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.space.space import parse_space
from ptal_ray.study.event_types import KINDS
from ptal_ray.study.events import EventLog

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SPACE = """
method: apn
dataset: demo
budget: {trials: 12, min_steps: 10, max_steps: 90, eta: 3}
train:
  batch_size: 4
  lr: {loguniform: [1e-4, 1e-1], default: 1e-4}
  refresh_every: {choice: [1, 5, 10]}
decode:
  nms_tiou: {uniform: [0.3, 0.9]}
final: {top: 2, seeds: 3}
"""
STEPS = (10, 30, 90)


def metrics(split: str, value: float) -> dict[str, float]:
    """mAP at each threshold, falling with it, and their averages."""
    at = {t: value * (1.2 - t) for t in THRESHOLDS}
    mean = sum(at.values()) / len(at)
    named = {f"{split}/mAP_{t:.2f}": v for t, v in at.items()}
    averages = {f"{split}/mAP_avg": mean, f"{split}/mAP_avg_0.10-0.70": mean}
    return named | averages | {f"{split}/num_videos": 210.0}


class SyntheticStudy:
    """Writes the events of a study one after the other; times are fixed, two seconds apart.

    Args:
        directory: the study directory.
        store: what the finals detect in; their detections are empty without it.
        features: of the data.
        method, dataset: their names; the space stays that of apn.
    """

    def __init__(
        self,
        directory: Path,
        store: FeatureStore | None = None,
        features: str = "real",
        method: str = "apn",
        dataset: str = "demo",
    ) -> None:
        self.directory, self.store, self.features = directory, store, features
        self.method, self.dataset = method, dataset
        self.log = EventLog(directory / "events.jsonl")
        self.space = parse_space(SPACE, name="apn_demo", source="synthetic")
        self.time = 1_790_000_000.0
        self.random = np.random.default_rng(0)

    def append(self, event: str, **fields: Any) -> None:
        self.time += 2.0
        self.log.append(KINDS[event](time=self.time, **fields))

    def begin(self) -> None:
        space = self.space
        plain = {
            "name": self.directory.name, "space_name": space.name, "num_trials": 12, "seed": 7,
            "searcher": "tpe", "scheduler": "asha", "time_budget_s": None, "max_concurrent": None,
            "store": str(self.store.path) if self.store else "/nowhere", "space": space.as_dict(),
        }  # fmt: skip
        (self.directory / "study.json").write_text(json.dumps(plain))
        info = self.store.info if self.store else None
        self.append(
            "study", study=self.directory.name, method=self.method, dataset=self.dataset,
            features=self.features, note="Made up for a test.", space=space.as_dict(),
            defaults={"train": space.train_defaults(), "decode": space.decode_defaults()},
            seed=7, git_commit="f" * 40, versions={"python": "3.11", "torch": "2.13.0"},
            hardware={"cpu": "Test CPU @ 2 GHz", "cpus": 2, "memory_gib": 8.0, "gpus": []},
            data_hash=info.content_hash if info else "0" * 64, searcher="tpe", scheduler="asha",
        )  # fmt: skip

    def start(self, number: int, from_step: int = 0) -> float:
        """Starts a trial; returns the quality of its parameters, in [0, 1]."""
        lr = float(10 ** -(1 + 3 * np.random.default_rng(number).random()))
        refresh = [1, 5, 10][number % 3]
        params = {"lr": lr, "refresh_every": refresh}
        self.append("trial_start", trial=number, params=params, from_step=from_step)
        return math.exp(-((math.log10(lr) + 2.0) ** 2))

    def report(self, number: int, step: int, quality: float) -> None:
        value = quality * (1 - math.exp(-step / 30))
        found = metrics("val", value)
        self.append(
            "report", trial=number, step=step, objective=found["val/mAP_avg"],
            metrics=found | {"train/loss_total": 1 / step, "train/loss_pem": 0.1 + 0.2 / step},
            decode={"nms_tiou": 0.3 + 0.01 * number}, seconds=step / 10, to_first_step_s=0.02,
        )  # fmt: skip

    def trial(self, number: int, state: str = "complete") -> None:
        """A whole trial: a pruned one reports once, a failed one diverges at its second report."""
        quality = self.start(number)
        for step in STEPS if state == "complete" else STEPS[:1]:
            self.report(number, step, quality)
        message = "train/loss_total: nan by step 30; lower lr" if state == "failed" else ""
        self.append("trial_end", trial=number, state=state, message=message)

    def trials(self, count: int) -> None:
        """`count` trials: every second one pruned, the fifth failed."""
        for number in range(count):
            self.trial(number, "failed" if number == 4 else ("complete", "pruned")[number % 2])

    def final(self, role: str, arm: str, seed: int, quality: float) -> None:
        split = "test" if role == "test" else "val"
        folder = f"final/{arm}_seed{seed}"
        self._detections(self.directory / folder / "detections.json", quality)
        self.append(
            "final_report", arm=arm, role=role, seed=seed,
            params=self.space.train_defaults() | {"lr": 0.01 if arm == "best" else 1e-4},
            decode=self.space.decode_defaults() | {"nms_tiou": 0.45 if arm == "best" else 0.7},
            step=90, metrics=metrics(split, quality) | {"train/loss_total": 0.02},
            detections=f"{folder}/detections.json",
        )  # fmt: skip

    def finals(self) -> None:
        """Two candidates chosen between, then the winner and the defaults, three seeds each."""
        for arm, quality in (("candidate1", 0.6), ("candidate2", 0.5)):
            for seed in range(3):
                self.final("reselect", arm, seed, quality + 0.01 * seed)
        for arm, quality in (("best", 0.55), ("default", 0.4)):
            for seed in range(3):
                self.final("test", arm, seed, quality + 0.01 * seed)

    def end(self, state: str = "done") -> None:
        self.append(
            "study_end", state=state, best_trial=0, best_params={"lr": 0.01, "refresh_every": 1},
            best_decode={"nms_tiou": 0.45}, message="",
        )  # fmt: skip

    def whole(self, count: int = 12) -> Path:
        """A study from its first to its last event; returns its directory."""
        self.begin()
        self.trials(count)
        self.finals()
        self.end()
        return self.directory

    def _detections(self, path: Path, quality: float) -> None:
        """The instances, shifted the more the lower `quality` is, and as many false ones."""
        found, classes = {}, ("a",)
        if self.store:
            classes = self.store.info.classes
            for video in self.store.ids("test"):
                truth = self.store.annotations(video)
                shift = self.random.normal(0, 2 * (1 - quality), len(truth))
                false = replace_score(truth, 0.3 * self.random.random(len(truth)), 5.0)
                moved = replace_score(truth, 0.4 + 0.6 * self.random.random(len(truth)), shift)
                found[video] = concatenate(moved, false, self.store.duration_s(video))
        write_detections(path, found, classes)


def replace_score(segments: Segments, score: Any, shift: Any) -> Segments:
    plain = asdict(segments) | {"score": score}
    return Segments(
        **plain | {"start_s": segments.start_s + shift, "end_s": segments.end_s + shift}
    )


def concatenate(first: Segments, second: Segments, duration_s: float) -> Segments:
    """Both, inside the video, by score descending."""
    a, b = asdict(first), asdict(second)
    both = Segments(**{k: np.concatenate([a[k], b[k]]) for k in a})
    clipped = Segments(
        start_s=np.clip(both.start_s, 0, duration_s), end_s=np.clip(both.end_s, 0, duration_s),
        label=both.label, score=both.score,
    )  # fmt: skip
    kept = clipped.take(clipped.end_s > clipped.start_s)
    return kept.take(np.argsort(-kept.score, kind="stable"))
