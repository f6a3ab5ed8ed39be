"""The interface of a method: plain functions and two parameter classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from numpy.typing import NDArray
from torch import Tensor, nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.rules import Rule
from ptal_ray.methods.step import Batch as Batch
from ptal_ray.methods.step import Pseudo as Pseudo
from ptal_ray.methods.step import Step as Step


def param(
    default: Any,
    *,
    doc: str,
    source: str,
    allowed: tuple[Any, ...] | None = None,
    since: int = 0,
    file: bool = False,
    fixed: str = "",
) -> Any:
    """A documented hyperparameter of a parameter class.

    Args:
        default: the paper's value, or ours if it states none.
        doc: one line with the unit and the paper's symbol.
        source: P (stated in the paper), C (its code), BSN, ... or PROPOSED (ours).
        allowed: for a number (low, high), both included; for a string or bool, the choices.
        since: the first training stage of the method that reads it, counted from 0; trials that
            differ only in it share the earlier stages, see `seen_by`.
        file: whether its value is the path of a file, of which the content matters, not the name.
        fixed: why no search can vary it; empty if a search can.
    """
    metadata = {"doc": doc, "source": source, "allowed": allowed, "since": since, "file": file}
    return field(default=default, metadata=metadata | {"fixed": fixed})


class Labelled(NamedTuple):
    """The selection of the annotated training videos of a method.

    Args:
        fraction: the annotated fraction.
        seed: of the draw.
    """

    fraction: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """Train-time parameters of every method; changing one requires training again.

    The class of a method adds its parameters and may change defaults.
    """

    lr: float = param(1e-4, doc="Adam learning rate", source="P", allowed=(1e-6, 1.0))
    weight_decay: float = param(
        1e-4, doc="Adam weight decay", source="PROPOSED", allowed=(0.0, 1.0)
    )
    batch_size: int = param(16, doc="videos per global batch", source="P", allowed=(1, 4096))
    refresh_every: int = param(
        10, doc="R, iterations after which a pseudo-label is stale", source="P", allowed=(1, 100000)
    )
    max_snippets: int = param(
        1500,
        doc="longer videos are randomly cropped in training",
        source="PROPOSED",
        allowed=(8, 100000),
    )
    resample_to: int = param(
        0,
        doc="snippets every video is linearly resampled to; 0 keeps its length",
        source="P (ActivityNet: 100)",
        allowed=(0, 100000),
    )
    resampling: str = param(
        "linear",
        doc="how a video is resampled: interpolated, or to one snippet of each part: its first, "
        "or in training a random one",
        source="PROPOSED (LACP's code: uniform, random)",
        allowed=("linear", "uniform", "random"),
    )
    crop_shortest: float = param(
        1.0,
        doc="a crop is at least this share of a video's length, of random length from there on",
        source="PROPOSED (1: as long as possible)",
        allowed=(0.1, 1.0),
    )
    crop_points: float = param(
        0.0,
        doc="more than this share of a video's points lies in a crop, if 500 draws find one",
        source="PROPOSED (0: at least one point)",
        allowed=(0.0, 1.0),
    )
    optimizer: str = param(
        "adam",
        doc="adamw decays weights apart from the gradient, and no biases, norms and scales",
        source="P",
        allowed=("adam", "adamw"),
    )
    warmup: float = param(
        0.0,
        doc="share of the steps in which lr rises linearly from 0",
        source="PROPOSED",
        allowed=(0.0, 1.0),
    )
    cosine: bool = param(False, doc="lr falls to 0 along a cosine after that", source="PROPOSED")
    grad_clip: float = param(
        0.0, doc="greatest norm of a gradient; 0 for any", source="PROPOSED", allowed=(0.0, 1000.0)
    )
    ema: float = param(
        0.0,
        doc="decay of the averaged weights used for scoring; 0: score the weights themselves",
        source="PROPOSED",
        allowed=(0.0, 0.99999),
    )

    def labelled(self) -> Labelled | None:
        """The annotated training videos; None for point supervision."""
        return None

    def texts(self) -> str:
        """The text encoder of the class embeddings in the network; empty for none."""
        return ""

    def remark(self) -> str:
        """The note that every table must have for a run with these parameters; empty for none."""
        return ""


@dataclass(frozen=True, kw_only=True)
class DecodeParams:
    """Decode-time parameters: changing one changes neither weights nor cached scores."""


TrainT = TypeVar("TrainT", bound=TrainParams)
DecodeT = TypeVar("DecodeT", bound=DecodeParams)
Params = TypeVar("Params", bound=TrainParams | DecodeParams)


def with_values(kind: type[Params], values: Mapping[str, Any]) -> Params:
    """Parameters of a class, from checked values of a search space or of `asdict`.

    Raises:
        DataError: one has no such parameter: they are of a study of another version.
    """
    if other := values.keys() - {field.name for field in fields(kind)}:
        raise DataError(
            f"{min(other)!r} is no parameter of {kind.__name__} in this version; use the version "
            "that wrote it"
        )
    return kind(**values)


def seen_by(hp: Params, stage: int) -> Params:
    """Parameters for a stage: those of later stages have their defaults.

    Args:
        hp: of the whole training.
        stage: its number, counted from 0.
    """
    own = fields(hp)
    late = {f.name: f.default for f in own if f.metadata["since"] > stage}
    return with_values(type(hp), {f.name: getattr(hp, f.name) for f in own} | late)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The result of a trained stage.

    Args:
        scores: of each training video of the next trial, in the order of its split; empty if the
            stage is not scored. If it has `rules`: the columns of the predicted `Segments` of each
            video without annotations.
        weights: parameters of the module by name; empty if they are not stored.
    """

    scores: list[Scores]
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[TrainT]):
    """A training before that of a method, shared by all trials with the same inputs of it.

    Args:
        method: its name for `load`.
        params: hp -> its train parameters, the only part of hp that it reads.
        steps: the train parameter with its optimiser steps; with 0 the stage is skipped.
        scored: whether it scores the training videos of the next trial.
        rules: for a scored stage, hp -> decode parameters: its scores are decoded once for all
            trials with the same ones. None if the next trial uses the scores.
        starts: whether the next trial starts with its weights, for parameters with the same names.
    """

    method: str
    params: Callable[[TrainT], TrainParams]
    steps: str
    scored: bool = True
    rules: Callable[[TrainT], DecodeParams] | None = None
    starts: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """The inputs of the labels of a training split.

    Args:
        split: the training videos.
        stage: the result of the earlier stage; None without one.
        truth: returns the annotations, by id, of the annotated videos: of all, or for a
            semi-supervised method of those in `labelled`. Reads them when called.
        labelled: ids of the annotated videos.
    """

    split: PackedSplit
    stage: StageResult | None
    truth: Callable[[], dict[str, Segments]]
    labelled: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Method(Generic[TrainT, DecodeT]):
    """A method as plain functions; `hp` is an instance of `train_params`.

    Args:
        name: the name for `load`.
        supervision: "point"; "full", trained only on the labelled videos; or "semi", trained on all
            videos with the annotations of the labelled ones. For the last two the parameters
            determine these videos, see `TrainParams.labelled`.
        train_params, decode_params: the parameter classes.
        build: (store, hp) -> module. Reads `store.info` and class embeddings, never annotations.
            Called under a seeded generator.
        loss: (model, batch, hp, step) -> weighted 0-d terms by name; the trial sums and logs each.
        scores: (model, batch, hp) -> one Scores per video; no gradient, padding removed. Batches at
            evaluation are never cropped.
        decode: (scores, grid, duration_s, decode_hp) -> Segments, sorted by score descending,
            inside [0, duration_s]. Has no access to the model and train parameters.
        refresh: (model, batch, hp) -> Pseudo, or None for a method without pseudo-labels. The
            batch is uncropped. Every tensor is (B, ...); its
            trailing shape depends only on P, Q and C.
        label_segments: (pseudo, batch) -> for each video a (K, 3) array of the action
            instances of its pseudo-labels: first snippet, last snippet, class. For the evaluation
            of labels; training does not use it. None if the method has no pseudo-labels. `batch`
            is None for labels that `labels` made.
        stage: the training before this one, or None.
        labels: (known, hp) -> Pseudo of every row of the split, made once before training from
            annotations or from the result of the stage. None for a method without such labels.
        memory: (known, hp) -> tensors of any shape, made once before training and given to every
            step. None for none.
        check: (store, hp) -> None, or a ConfigError or DataError if the method cannot train on that
            dataset with these parameters. Reads descriptions and files in parameters, never
            annotations, and loads no model, because it is called for many configurations before a
            search. `build` calls it too. None if there is nothing to check.
        network: (model, features, mask, hp) -> named tensors with a row per video: all network
            outputs in `scores`, computed with operations that `torch.export` supports. None if
            scores depend on the candidates of a video.
        network_lengths: hp -> (least, step), the lengths T that `network` is exported for: least,
            least + step, ...; with step 0 only the least. None for any.
        rules: rules that compute values of a search space from the user's own data.
        groups: (labels, hp) -> rows of the split, one array per kind of video; every batch has
            `batch_size` of each kind, and the last one counts for epochs. None for all rows.
        paper_sizes: train parameters that the time of a step depends on, where the paper has other
            values on THUMOS14 than the defaults; for timings.
    """

    name: str
    supervision: str
    train_params: type[TrainT]
    decode_params: type[DecodeT]
    build: Callable[[FeatureStore, TrainT], nn.Module]
    loss: Callable[[Any, Batch, TrainT, Step], dict[str, Tensor]]
    scores: Callable[[Any, Batch, TrainT], list[Scores]]
    decode: Callable[[Scores, Grid, float, DecodeT], Segments]
    refresh: Callable[[Any, Batch, TrainT], Pseudo] | None = None
    label_segments: Callable[[Pseudo, Any], list[NDArray[Any]]] | None = None
    stage: Stage[TrainT] | None = None
    labels: Callable[[Known, TrainT], Pseudo] | None = None
    memory: Callable[[Known, TrainT], Pseudo] | None = None
    check: Callable[[FeatureStore, TrainT], None] | None = None
    groups: Callable[[Pseudo, TrainT], list[NDArray[Any]]] | None = None
    network: Callable[[Any, Tensor, Tensor, TrainT], dict[str, Tensor]] | None = None
    network_lengths: Callable[[TrainT], tuple[int, int]] | None = None
    rules: tuple[Rule, ...] = ()
    paper_sizes: Mapping[str, Any] = field(default_factory=dict)


AnyMethod: TypeAlias = Method[TrainParams, DecodeParams]  # for code that is the same for all


def names() -> tuple[str, ...]:
    """Names of the methods with a folder here, and of their variants.

    `VARIANTS` of a folder has the names of modules whose METHOD users may search.
    """
    folders = sorted(p.parent.name for p in Path(__file__).parent.glob("*/__init__.py"))
    variants = (
        f"{name}.{module}"
        for name in folders
        for module in getattr(import_module(f"ptal_ray.methods.{name}"), "VARIANTS", ())
    )
    return tuple(sorted([*folders, *variants]))


def load(name: str) -> AnyMethod:
    """The method in folder `name`, or in module "name.module" of a folder.

    Raises:
        ConfigError: there is no such method.
    """
    folder = Path(__file__).parent.joinpath(*name.split("."))
    if not folder.with_suffix(".py").is_file() and not (folder / "__init__.py").is_file():
        raise ConfigError(f"method: {name!r} is unknown; known are {', '.join(names())}")
    method: AnyMethod = import_module(f"ptal_ray.methods.{name}").METHOD
    return method
