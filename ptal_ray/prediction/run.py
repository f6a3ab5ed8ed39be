"""Detections of a whole folder: in batches of similar length, from where an earlier run stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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


def predict_folder(
    model: TrainedModel,
    files: Sequence[ScorableFile],
    broken: dict[str, str],
    partial: Partial,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Detects the actions of all videos; those that `partial` holds are taken from there.

    The batches are those of the whole folder, finished or not, so that a run that was interrupted
    finds what one that was not finds.

    Args:
        model: for features on the grid of the folder.
        files: with sound headers.
        broken: what is known to be wrong with others, by id.
        partial: keeps each batch once it is finished.
        progress: told how many of all videos are done.

    Raises:
        DataError: no video has detections; why the first one has none.
    """
    broken, done = dict(broken), 0
    lengths = np.array([file.length for file in files], np.int64)
    if model.train.resample_to:
        lengths = np.full_like(lengths, model.train.resample_to)
    for rows in by_length(lengths, SCORE_SNIPPETS):
        batch = [files[row] for row in rows]
        if not all(map(partial.holds, batch)):
            _predict_batch(model, batch, broken, partial)
        done += len(batch)
        progress(done, len(files))
    good = sorted((file for file in files if file.id not in broken), key=lambda file: file.id)
    if not good:
        first = min(broken)
        raise DataError(
            f"no video could be scored, {len(broken)} are refused; {first}: {broken[first]}"
        )
    return Found(
        detections={file.id: partial.found[file.id] for file in good},
        durations={file.id: file.duration_s for file in good},
        broken={id: broken[id] for id in sorted(broken)},
    )


def _predict_batch(
    model: TrainedModel, batch: list[ScorableFile], broken: dict[str, str], partial: Partial
) -> None:
    videos: dict[str, Video] = {}
    for file in batch:
        try:
            videos[file.id] = file.video(model.expected)
        except DataError as error:
            broken[file.id] = str(error)
    found, failed = model.detect(videos)
    broken |= failed
    for file in batch:
        if file.id in found:
            partial.add(file, found[file.id])


def identity(model: TrainedModel) -> dict[str, Any]:
    """All that the detections of a video depend on beside its features."""
    return {
        "ptal_ray": __version__,
        "model": hashlib.sha256(Path(model.path).read_bytes()).hexdigest(),
        "grid": asdict(model.grid),
        "device": model.device.type,
    }
