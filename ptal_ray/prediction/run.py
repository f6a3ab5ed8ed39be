"""Detections of a whole folder: in batches of similar length, from where an earlier run stopped."""

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

Progress = Callable[[int, int], None]
Files = Sequence[ScorableFile]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What became of a batch.

    Args:
        files: the batch.
        detections: by id.
        broken: why a video has none, by id.
    """

    files: Files
    detections: dict[str, Segments]
    broken: dict[str, str]


Scorer = Callable[[TrainedModel, Sequence[Files]], Iterator[Scored]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a prediction found.

    Args:
        detections: by video, sorted by id.
        durations: seconds of each of these.
        broken: why a video has none, by id.
    """

    detections: dict[str, Segments]
    durations: dict[str, float]
    broken: dict[str, str]


def score_batch(model: TrainedModel, files: Files) -> Scored:
    """Reads the features of a batch and detects its actions."""
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
    """Scores one batch after the other in this process."""
    return (score_batch(model, batch) for batch in batches)


def predict_folder(
    model: TrainedModel,
    files: Files,
    broken: dict[str, str],
    partial: Partial,
    score: Scorer = score_here,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Detects the actions of all videos; those that `partial` holds are taken from there.

    The batches are those of the whole folder, finished or not, and whoever scores them, so that a
    run that was interrupted, or one of several processes, finds what another one finds.

    Args:
        model: for the features.
        files: with sound headers.
        broken: what is known to be wrong with others, by id.
        partial: keeps each batch once it is finished.
        score: scores batches, in any order.
        progress: told how many of all videos are done.

    Raises:
        DataError: no video has detections; why the first one has none.
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
        first = min(broken)
        raise DataError(f"none of {len(broken)} videos could be scored; {first}: {broken[first]}")
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
    """All that the detections of a video depend on beside its features.

    Args:
        model: that finds them.
        device: kind of the device that scores.
    """
    digest = hashlib.sha256()
    for path in model.paths:
        digest.update(path.read_bytes())
    return {
        "ptal_ray": __version__,
        "model": digest.hexdigest(),
        "device": device,
    }
