"""The extraction settings of a training's features, for new videos."""

from __future__ import annotations

from pathlib import Path

from ptal_ray.data.features.preparation import recorded_extraction
from ptal_ray.errors import DataError
from ptal_ray.training.model_file import ModelFile
from ptal_ray.video.settings import Settings, WeightFiles, settings_from

_OF_TIME = ("fps", "stride", "window")  # --allow-stride accepts other ones


def extraction_settings(path: Path, model: ModelFile, files: WeightFiles) -> Settings:
    """The settings to extract features of new videos.

    Args:
        path: of the model file.
        model: the model for the features.
        files: network files of the user.

    Raises:
        ConfigError: a file is missing or has another content.
        DataError: the features of the training were not made by this package.
    """
    made = model.preparation.extraction
    if not made:
        raise DataError(
            f"{path}: was not trained on features from python -m ptal_ray.extract, so --videos "
            f"cannot make them; it takes {_needed(model)}: make those and give --features"
        )
    return settings_from(made, files)


def check_extraction(folder: Path, path: Path, model: ModelFile, *, any_stride: bool) -> None:
    """Check that the features in a folder were extracted like those of the training.

    Args:
        folder: of the features; not checked if no extraction wrote it.
        path: of the model file.
        model: the model for the features.
        any_stride: whether frame rate, stride and window may differ.

    Raises:
        DataError: they were extracted with other settings.
    """
    trained, found = model.preparation.extraction, recorded_extraction(folder)
    if not trained or not found:
        return
    free = {"dtype", *(_OF_TIME if any_stride else ())}
    other = [key for key in {**trained, **found} if trained.get(key) != found.get(key)]
    if other := [key for key in other if key not in free]:
        was = "; ".join(f"{key} {found.get(key)}, not {trained.get(key)}" for key in other)
        advice = ", or pass --allow-stride" if set(other) <= set(_OF_TIME) else ""
        raise DataError(
            f"{folder}: was extracted with {was}, which {path} was trained on; give the videos by "
            f"--videos, or extract them again with these settings{advice}"
        )


def _needed(model: ModelFile) -> str:
    """A short description of the inputs of a model."""
    prepared, data = model.preparation, model.data
    if prepared.of_recordings:
        return f"recordings of sensors as the data set {data.name}"
    every = f" every {model.grid.stride_s:g} s" if data.grid else ""
    note = f" ({data.note})" if data.note else ""
    return f"{data.feature_dim} numbers{every}, as the features of {data.name}{note}"
