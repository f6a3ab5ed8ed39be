"""A model file for MLflow: `mlflow.pyfunc.load_model("models:/ptal-apn-watch/1")`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.types import Segments, Video
from ptal_ray.errors import DataError
from ptal_ray.prediction.folder import another_width
from ptal_ray.prediction.times import covered_s
from ptal_ray.prediction.trained import TrainedModel, load_model

Found = dict[str, list[dict[str, Any]]]


class Detector:
    """Finds actions in features.

    Args:
        path: of a model file, or of a folder with one.
    """

    def __init__(self, path: Path) -> None:
        files = sorted(path.rglob("*.pt")) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: holds no model file; give the model.pt of a final run")
        self._path = files[0]

    def predict(
        self, model_input: Mapping[str, Any] | Any, params: Mapping[str, Any] | None = None
    ) -> Found:
        """Detections of each video, the strongest first.

        Args:
            model_input: features (T, D) by video id, extracted like those of the training, or
                recordings (samples, channels) if the training had those; a single array is a video
                called "video".
            params: not used.

        Returns:
            By id, dicts of "label", "segment" ([start, end] in seconds) and "score".

        Raises:
            DataError: features have another shape, or their scores are not finite.
        """
        if params:
            raise DataError(f"params {sorted(params)}: the model has no parameters; remove them")
        given = model_input if isinstance(model_input, Mapping) else {"video": model_input}
        model = load_model(self._path, torch.device("cpu"), tuple(given))
        videos = {id: _video(id, features, model) for id, features in given.items()}
        found, broken = model.detect(videos)
        if broken:
            id = min(broken)
            raise DataError(f"video {id}: {broken[id]}")
        return {id: _plain(own, model.file.data.classes) for id, own in found.items()}


def _video(id: str, features: Any, model: TrainedModel) -> Video:
    array, expected = np.asarray(features), model.expected
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"video {id}: features {array.shape}; must have two dimensions")
    given = FeatureFile(file=Path(id), shape=lambda: array.shape, read=lambda: array)
    made = expected.preparation.opened(given)
    length, dim = made.shape()
    if dim != expected.dim:
        raise DataError(f"video {id}: {another_width(array.shape, expected)}")
    if model.file.data.grid is None:
        raise DataError(
            "the model was trained on videos of different strides, so the stride of a new video "
            "is not known; use python -m ptal_ray.predict with --fps or --durations"
        )
    grid = model.file.grid
    return Video(
        id=id,
        features=expected.prepared(made.read()),
        duration_s=covered_s(length, grid),
        grid=grid,
    )


def _plain(found: Segments, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    order = np.argsort(-found.score, kind="stable")
    return [
        {
            "label": classes[found.label[k]],
            "segment": [float(found.start_s[k]), float(found.end_s[k])],
            "score": float(found.score[k]),
        }
        for k in order
    ]


def _load_pyfunc(path: str) -> Detector:
    """The function that MLflow calls; `path` is the logged file or folder."""
    return Detector(Path(path))
