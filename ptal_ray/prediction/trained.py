"""A trained network with its decode parameters: features of new videos in, detections out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.new_videos import NewVideos
from ptal_ray.data.types import Scores, Segments, Video
from ptal_ray.errors import DataError
from ptal_ray.methods.method import (
    AnyMethod,
    DecodeParams,
    Params,
    TrainParams,
    load,
    names,
    with_values,
)
from ptal_ray.prediction.folder import Expected
from ptal_ray.study.ensemble_file import is_ensemble, read_ensemble
from ptal_ray.training.averaging import averaged
from ptal_ray.training.model_file import ModelFile, read_model
from ptal_ray.training.scoring import not_finite, score_videos

ANEW = "train all again: python -m ptal_ray.train BEST.yaml --ensemble --out DIR"
LONGEST = 80  # characters of a value in a message


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A network for scoring videos, or the first of several whose scores are averaged.

    Args:
        path: of its file.
        file: its content.
        method: how to score and decode.
        network: with its weights, in inference mode.
        train, decode: the parameters of the method.
        videos: replaces the store; none are in memory.
        device: of the network.
        members: of an ensemble, including this one, with the weights of their scores.
    """

    path: Path
    file: ModelFile
    method: AnyMethod
    network: nn.Module
    train: TrainParams
    decode: DecodeParams
    videos: NewVideos
    device: torch.device
    members: tuple[tuple[TrainedModel, int], ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that determine the detections."""
        return (self.path, *(member.path for member, _ in self.members))

    @property
    def expected(self) -> Expected:
        """Its requirements on features; for resampled videos any stride is accepted."""
        return Expected(
            dim=self.file.data.feature_dim,
            dtype=self.file.dtype,
            preparation=self.file.preparation,
            strides=None if self.train.resample_to else self.file.strides,
        )

    def detect(self, videos: Mapping[str, Video]) -> tuple[dict[str, Segments], dict[str, str]]:
        """Score a batch of videos and decode the scores, like a final run on test videos.

        Args:
            videos: by id.

        Returns:
            Detections by id, and the problem of each video without any: its scores are not finite.
        """
        if not videos:
            return {}, {}
        loaded = NewVideos(
            self.videos.path, self.videos.info, self.file.dtype, tuple(videos), videos
        )
        split = PackedSplit(
            loaded, tuple(videos), self.device,
            resample_to=self.train.resample_to, sampling=self.train.resampling,
        )  # fmt: skip
        scores = self._scores(split)
        found: dict[str, Segments] = {}
        broken: dict[str, str] = {}
        for own, grid in zip(scores, split.grids, strict=True):
            if not_finite([own]) is None:
                duration_s = videos[own.id].duration_s
                found[own.id] = self.method.decode(own, grid, duration_s, self.decode)
            else:
                broken[own.id] = "its scores are not finite; check the scale of its features"
        return found, broken

    def _scores(self, split: PackedSplit) -> list[Scores]:
        """The scores of loaded videos.

        Raises:
            DataError: those of members cannot be averaged.
        """
        if not self.members:
            return score_videos(self.method, self.network, split, self.train, self.file.precision)
        counted = ((member._scores(split), times) for member, times in self.members)
        try:
            return averaged([scores for scores, times in counted for _ in range(times)])
        except ValueError as error:
            raise DataError(f"{self.path}: its members do not fit: {error}; {ANEW}") from error


def load_model(path: Path, device: torch.device, ids: tuple[str, ...] = ()) -> TrainedModel:
    """The model in a file, or the ensemble in ensemble.json.

    Args:
        path: of the file, a model or ensemble.json.
        device: for the network.
        ids: of the videos to score; external video scores must have them.

    Raises:
        ConfigError: parameters exclude each other, as in training.
        DataError: the file cannot be read, its method has changed, or the members of an ensemble do
            not match.
    """
    if not is_ensemble(path):
        return _load_single(path, device, ids)
    members = tuple(
        (_load_single(member.model, device, ids), member.times) for member in read_ensemble(path)
    )
    first = members[0][0]
    for member, _ in members[1:]:
        check_fit(first, member)
    return replace(first, path=path, members=members)


def _load_single(path: Path, device: torch.device, ids: tuple[str, ...]) -> TrainedModel:
    file = read_model(path)
    if file.method not in names():
        raise DataError(
            f"{path}: method {file.method!r} is unknown; known are {', '.join(names())}"
        )
    method = load(file.method)
    train = _params(path, "train", method.train_params, file.train)
    decode = _params(path, "decode", method.decode_params, file.decode)
    texts = {name: rows.numpy() for name, rows in file.texts.items()}
    videos = NewVideos(path, file.data, file.dtype, ids, embeddings=texts)
    with torch.random.fork_rng(devices=[]):
        network = method.build(videos, train)
    try:
        network.load_state_dict(file.weights)
    except RuntimeError as error:
        raise DataError(
            f"{path}: weights of another version of {file.method} (ptal_ray {file.version}); "
            "install that version, or train again"
        ) from error
    return TrainedModel(
        path=path,
        file=file,
        method=method,
        network=network.to(device).eval(),
        train=train,
        decode=decode,
        videos=videos,
        device=device,
    )


def check_fit(first: TrainedModel, other: TrainedModel) -> None:
    """Check that the scores of two models can be averaged and decoded like those of one.

    Raises:
        DataError: they cannot.
    """
    for what, own, its in (
        ("method", first.file.method, other.file.method),
        ("classes", first.file.data.classes, other.file.data.classes),
        ("features of a snippet", first.file.data.feature_dim, other.file.data.feature_dim),
        ("type of features", first.file.dtype, other.file.dtype),
        ("preparation of features", first.file.preparation.plain(), other.file.preparation.plain()),
        ("grid", first.file.grid, other.file.grid),
        ("strides", first.file.strides, other.file.strides),
        ("train.resample_to", first.train.resample_to, other.train.resample_to),
        ("train.resampling", first.train.resampling, other.train.resampling),
        ("decode parameters", first.file.decode, other.file.decode),
    ):
        if own != its:
            raise DataError(
                f"{other.path}: does not fit {first.path}: {what}: {_short(its)} here, "
                f"{_short(own)} there; {ANEW}"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _params(path: Path, section: str, kind: type[Params], values: Mapping[str, Any]) -> Params:
    """`kind(**values)`; `values` must have exactly its fields."""
    known = {field.name for field in fields(kind)}
    if other := known ^ set(values):
        raise DataError(
            f"{path}: the file and the installed ptal_ray have different parameters "
            f"({section}.{min(other)}); install the version that wrote it, or train again"
        )
    return with_values(kind, values)
