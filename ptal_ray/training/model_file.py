"""The model file for detections in new videos: weights and everything else that is needed.

A dict of tensors and plain values that `torch.load(..., weights_only=True)` reads. Format 1 has no
strides and no preparation.

    kind, format, version   what it is, the layout of this dict, the ptal_ray that wrote it
    method, train, decode   the name of the method and all its parameters (train.resample_to too)
    precision               "fp32" or "bf16"
    data                    name, classes, feature_dim, content_hash, ...
    grid                    stride_s and offset_s; if training videos differ, their medians
    strides                 least and greatest stride_s of the training videos
    preparation             how files of a user become features, see `data/features/preparation.py`
    dtype                   of the stored features; new ones are rounded in the same way
    texts                   embeddings of the classes by text encoder; empty without one
    weights                 of the network, or of its moving average if there is one
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptal_ray import __version__
from ptal_ray.data.features.preparation import UNKNOWN, Preparation
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.text import class_embeddings
from ptal_ray.data.types import DatasetInfo, Grid
from ptal_ray.errors import DataError
from ptal_ray.space.domain import Scalar
from ptal_ray.training.checkpoint import write_tensors
from ptal_ray.training.task import Task

KIND, FORMAT = "ptal_ray model", 2


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The content of a model file, see the docstring of this module.

    Args:
        version: of ptal_ray that wrote it.
        method: name for `ptal_ray.methods.method.load`.
        train, decode: every parameter.
        precision: "fp32" or "bf16".
        data: of the store it was trained on.
        grid: of the training videos; if they differ, their median stride and offset.
        strides: seconds, least and greatest of the training videos.
        preparation: how a user's files become features.
        dtype: of the features in that store.
        texts: (C, d) by text encoder.
        weights: by name, on the CPU.
    """

    method: str
    train: dict[str, Scalar]
    decode: dict[str, Scalar]
    precision: str
    data: DatasetInfo
    grid: Grid
    dtype: str
    texts: dict[str, Tensor]
    weights: dict[str, Tensor]
    strides: tuple[float, float]
    preparation: Preparation = UNKNOWN
    version: str = __version__


def model_file(task: Task, judged: nn.Module, decode: Mapping[str, Scalar]) -> ModelFile:
    """The model file of a run.

    Args:
        task: of the run.
        judged: the network that was evaluated.
        decode: every decode parameter.
    """
    config, store, encoder = task.config, task.store, task.hp.texts()
    texts = {encoder: class_embeddings(store, encoder)} if encoder else {}
    return ModelFile(
        method=config.method,
        train=dict(config.train),
        decode=dict(decode),
        precision=config.precision,
        data=store.info,
        grid=store.info.grid or _median(store),
        strides=_strides(store),
        preparation=store.preparation,
        dtype=store.dtype,
        texts={name: torch.from_numpy(rows) for name, rows in texts.items()},
        weights={name: value.detach().cpu() for name, value in judged.state_dict().items()},
    )


def _median(store: FeatureStore) -> Grid:
    grids = [store.grid(id) for id in store.ids("train")]
    return Grid(
        stride_s=float(np.median([grid.stride_s for grid in grids])),
        offset_s=float(np.median([grid.offset_s for grid in grids])),
    )


def _strides(store: FeatureStore) -> tuple[float, float]:
    strides_s = [store.grid(id).stride_s for id in store.ids("train")]
    return min(strides_s), max(strides_s)


def write_model(path: Path, model: ModelFile) -> None:
    """Write a model file atomically.

    Raises:
        OSError: it cannot be written; no partial file remains.
    """
    plain = {field.name: getattr(model, field.name) for field in fields(model)}
    data = asdict(model.data) | {"classes": list(model.data.classes)}
    nested = {
        "data": data,
        "grid": asdict(model.grid),
        "preparation": model.preparation.plain(),
    }
    write_tensors(path, {"kind": KIND, "format": FORMAT} | plain | nested)


def read_model(path: Path) -> ModelFile:
    """The model that `write_model` wrote.

    Raises:
        DataError: the file is missing, damaged, not a model file, or of a newer version.
    """
    try:
        file = io.BytesIO(path.read_bytes())  # of a cut file, torch may raise an OSError itself
        content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path}: damaged or no model file; give the model.pt of a run, or copy it again"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{path}: no model file; give the {_hint(content)} of a finished run")
    if not isinstance(written := content.get("format"), int) or written > FORMAT:
        raise DataError(
            f"{path}: written by ptal_ray {content.get('version')} in format {written}, and "
            f"{__version__} reads up to {FORMAT}; install that version or a newer one"
        )
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged model file ({error!r}); copy it again") from error


def _parsed(content: dict[str, Any]) -> ModelFile:
    data = dict(content["data"])
    data |= {
        "classes": tuple(data["classes"]),
        "grid": Grid(**data["grid"]) if data["grid"] else None,
    }
    grid = Grid(**content["grid"])
    least, greatest = content.get("strides", (grid.stride_s, grid.stride_s))
    parsed: dict[str, Any] = {
        "data": DatasetInfo(**data),
        "grid": grid,
        "strides": (float(least), float(greatest)),
        "preparation": Preparation.of(content.get("preparation", {})),
    }
    names = [field.name for field in fields(ModelFile) if field.name not in parsed]
    return ModelFile(**{name: content[name] for name in names}, **parsed)


def _hint(content: Any) -> str:
    beside = isinstance(content, dict) and "optimizer" in content
    return "model.pt beside this checkpoint" if beside else "model.pt"
