"""The extraction that made the features of a training, for new videos."""

from __future__ import annotations

from pathlib import Path

from ptal_ray.data.preparation import recorded_extraction
from ptal_ray.errors import DataError
from ptal_ray.training.model_file import ModelFile
from ptal_ray.video.settings import Settings, WeightFiles, settings_from

_OF_TIME = ("fps", "stride", "window")  # --allow-stride accepts others


def extraction_settings(path: Path, model: ModelFile, files: WeightFiles) -> Settings:
    """How to make features of new videos.

    Args:
        path: of the model file.
        model: what the features are for.
        files: of networks that are the user's.

    Raises:
        ConfigError: a file is missing or is another one.
        DataError: the features of the training were made by something else.
    """
    made = model.preparation.extraction
    if not made:
        raise DataError(
            f"{path}: was not trained on features from python -m ptal_ray.extract, so --videos "
            f"cannot make them; it takes {_needed(model)}: make those and give --features"
        )
    return settings_from(made, files)


def check_extraction(folder: Path, path: Path, model: ModelFile, *, any_stride: bool) -> None:
    """Finds out whether the features in a folder were extracted as those of the training.

    Args:
        folder: of the features; nothing is said of one that no extraction wrote.
        path: of the model file.
        model: what they are for.
        any_stride: whether frame rate, stride and window may be others.

    Raises:
        DataError: they were extracted otherwise.
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
    """Which inputs a model takes, in a few words."""
    prepared, data = model.preparation, model.data
    if prepared.of_recordings:
        return f"recordings of sensors as the data set {data.name}"
    every = f" every {model.grid.stride_s:g} s" if data.grid else ""
    note = f" ({data.note})" if data.note else ""
    return f"{data.feature_dim} numbers{every}, as the features of {data.name}{note}"
