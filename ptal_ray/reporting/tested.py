"""The test runs of a study with what they detected, beside the annotations of the test videos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.datasets import protocol
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.method import load
from ptal_ray.ops.metrics import Matches, match_detections
from ptal_ray.reporting.study_store import store_of
from ptal_ray.storage.place import inside
from ptal_ray.study.captions import arm_label
from ptal_ray.study.view import StudyView
from ptal_ray.training.selection import ground_truth

Key = tuple[str, int]  # arm and seed


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Test videos, and what the test runs found in them.

    Args:
        classes: class names.
        names: what tables call each arm.
        truth: instances by video.
        durations: seconds by video.
        found: detections by (arm, seed) and video.
        matches: of them with the instances, at `tiou`, by (arm, seed).
        tiou: thresholds of the protocol of the dataset.
        averaged: columns of `tiou` that the objective averages.
        data_hash: content of the data.
    """

    classes: tuple[str, ...]
    names: dict[str, str]
    truth: dict[str, Segments]
    durations: dict[str, float]
    found: dict[Key, dict[str, Segments]]
    matches: dict[Key, Matches]
    tiou: tuple[float, ...]
    averaged: tuple[int, ...]
    data_hash: str

    def runs(self, arm: str) -> list[Matches]:
        """The matches of the seeds of an arm."""
        return [found for (name, _), found in sorted(self.matches.items()) if name == arm]

    def first(self, arm: str) -> Key | None:
        """The first seed of an arm; None where it has none."""
        return min((key for key in self.found if key[0] == arm), default=None)


def read_tested(view: StudyView, study_dir: Path) -> Tested:
    """The test runs of a study.

    Raises:
        DataError: why they cannot be shown.
    """
    runs = {(f.arm, f.seed): f.detections for f in view.finals if f.role == "test" and f.detections}
    if not view.has_test:
        raise DataError("there is no test split")
    if not runs:
        raise DataError("no final run has finished")
    store = store_of(view, study_dir)
    truth, classes = ground_truth(store, store.ids("test"), "test"), store.info.classes
    found = {k: _read_found(inside(study_dir, path), classes) for k, path in runs.items()}
    judged = protocol(view.study.dataset, _supervision(view))
    first = next(iter(judged.averages.values()))
    return Tested(
        classes=classes,
        names={arm: arm_label(view, arm) for arm in view.arms("test")},
        truth=truth,
        durations={id: store.duration_s(id) for id in truth},
        found=found,
        matches={
            key: match_detections(truth, own, len(classes), judged.tiou)
            for key, own in found.items()
        },
        tiou=judged.tiou,
        averaged=tuple(judged.tiou.index(t) for t in first),
        data_hash=store.info.content_hash,
    )


def _read_found(path: Path, classes: Sequence[str]) -> dict[str, Segments]:
    """The detections that a final run wrote, by video, the strongest first.

    Raises:
        DataError: the file is gone or damaged.
    """
    index = {name: k for k, name in enumerate(classes)}
    try:
        results = json.loads(path.read_text("utf-8"))["results"]
        return {id: _segments(items, index) for id, items in results.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path.name} of the final run cannot be read") from error


def _segments(items: Sequence[Mapping[str, Any]], index: Mapping[str, int]) -> Segments:
    items = sorted(items, key=lambda item: -item["score"])
    return Segments(
        start_s=np.array([i["segment"][0] for i in items], float),
        end_s=np.array([i["segment"][1] for i in items], float),
        label=np.array([index[i["label"]] for i in items], np.int64),
        score=np.array([i["score"] for i in items], float),
    )


def _supervision(view: StudyView) -> str:
    """Of the method, which determines the thresholds of some datasets."""
    try:
        return load(view.study.method).supervision
    except ConfigError as error:
        raise DataError(f"this version does not have the method: {error}") from error
