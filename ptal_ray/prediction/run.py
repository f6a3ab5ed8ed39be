"""Detections of a whole folder in batches of similar length; continues an earlier run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptal_ray import __version__
from ptal_ray.data.types import Segments, Video
from ptal_ray.errors import DataError
from ptal_ray.prediction.folder import ScorableFile
from ptal_ray.prediction.partial import Partial
from ptal_ray.prediction.trained import TrainedModel
from ptal_ray.training.scoring import SCORE_SNIPPETS, by_length

MOST_NAMED = 3  # broken files in an error
Progress = Callable[[int, int], None]
Files = Sequence[ScorableFile]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The results of a batch.

    Args:
        files: the batch.
        detections: by id.
        broken: the problem of each video without detections, by id.
    """

    files: Files
    detections: dict[str, Segments]
    broken: dict[str, str]


Scorer = Callable[[TrainedModel, Sequence[Files]], Iterator[Scored]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The results of a prediction.

    Args:
        detections: by video, sorted by id.
        durations: seconds of each of these.
        broken: the problem of each video without detections, by id.
    """

    detections: dict[str, Segments]
    durations: dict[str, float]
    broken: dict[str, str]


def score_batch(model: TrainedModel, files: Files) -> Scored:
    """Read the features of a batch and detect its actions."""
    videos: dict[str, Video] = {}
    broken: dict[str, str] = {}
    for file in files:
        try:
            videos[file.id] = file.video(model.expected)
        except DataError as error:
            broken[file.id] = str(error)
    found, failed = model.detect(videos)
    return Scored(files=files, detections=found, broken=broken | failed)


def score_here(model: TrainedModel, batches: Sequence[Files]) -> Iterator[Scored]:
    """Score one batch after the other in this process."""
    return (score_batch(model, batch) for batch in batches)


def predict_folder(
    model: TrainedModel,
    files: Files,
    broken: dict[str, str],
    partial: Partial,
    score: Scorer = score_here,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Detect the actions of all videos; finished ones are taken from `partial`.

    The batches are those of the whole folder, so that an interrupted run, or a run with several
    processes, gives the same detections as an uninterrupted one.

    Args:
        model: for the features.
        files: with valid headers.
        broken: known problems of other videos, by id.
        partial: stores each finished batch.
        score: scores batches, in any order.
        progress: called with the number of finished videos.

    Raises:
        DataError: no video has detections; with the problems of the first ones.
    """
    broken, batches = dict(broken), _batches(model, files)
    left = [batch for batch in batches if not all(map(partial.holds, batch))]
    done = len(files) - sum(map(len, left))
    for scored in score(model, left) if left else ():
        broken |= scored.broken
        for file in scored.files:
            if file.id in scored.detections:
                partial.add(file, scored.detections[file.id])
        done += len(scored.files)
        progress(done, len(files))
    good = sorted((file for file in files if file.id not in broken), key=lambda file: file.id)
    if not good:
        each = "; ".join(f"{id}: {broken[id]}" for id in sorted(broken)[:MOST_NAMED])
        more = f"; and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
        raise DataError(f"none of {len(broken)} videos could be scored; {each}{more}")
    return Found(
        detections={file.id: partial.found[file.id] for file in good},
        durations={file.id: file.duration_s for file in good},
        broken={id: broken[id] for id in sorted(broken)},
    )


def _batches(model: TrainedModel, files: Files) -> list[list[ScorableFile]]:
    lengths = np.array([file.length for file in files], np.int64)
    if model.train.resample_to:
        lengths = np.full_like(lengths, model.train.resample_to)
    return [[files[row] for row in rows] for rows in by_length(lengths, SCORE_SNIPPETS)]


def identity(model: TrainedModel, device: str) -> dict[str, Any]:
    """Everything besides its features that determines the detections of a video.

    Args:
        model: the model.
        device: kind of the scoring device.
    """
    digest = hashlib.sha256()
    for path in model.paths:
        digest.update(path.read_bytes())
    return {
        "ptal_ray": __version__,
        "model": digest.hexdigest(),
        "device": device,
    }
