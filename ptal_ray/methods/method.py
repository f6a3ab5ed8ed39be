"""What a method is: a bundle of plain functions and two parameter classes."""

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
from ptal_ray.errors import ConfigError
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
    """A documented hyperparameter of a params class.

    Args:
        default: the paper's value, or ours where it gives none.
        doc: one line with the unit and the paper's symbol.
        source: P (stated in the paper), C (its code), BSN, ... or PROPOSED (ours).
        allowed: for a number (low, high), both included; for a string or bool, the choices.
        since: the first of the method's stages of training that sees it, counted from 0; trials
            that differ in it share the stages before, see `seen_by`.
        file: whether its value is the path of a file, whose content decides, not its name.
        fixed: why no search can vary it; empty where one can.
    """
    metadata = {"doc": doc, "source": source, "allowed": allowed, "since": since, "file": file}
    return field(default=default, metadata=metadata | {"fixed": fixed})


class Labelled(NamedTuple):
    """Which training videos are annotated for a method.

    Args:
        fraction: share of them.
        seed: of the draw.
    """

    fraction: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """Train-time parameters every method has; a change of one needs re-training.

    A method's own class adds its parameters and may restate a default.
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
        doc="decay of the moving average of weights that is judged; 0 judges the weights",
        source="PROPOSED",
        allowed=(0.0, 0.99999),
    )

    def labelled(self) -> Labelled | None:
        """Which training videos are annotated; None for a method that points supervise."""
        return None

    def texts(self) -> str:
        """The text encoder whose class embeddings the network is built with; empty for none."""
        return ""

    def remark(self) -> str:
        """What every table must say of a run with these parameters; empty for nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class DecodeParams:
    """Decode-time parameters: changing one changes neither weights nor cached scores."""


TrainT = TypeVar("TrainT", bound=TrainParams)
DecodeT = TypeVar("DecodeT", bound=DecodeParams)
Params = TypeVar("Params", bound=TrainParams | DecodeParams)


def with_values(kind: type[Params], values: Mapping[str, Any]) -> Params:
    """Parameters of a class, from values that a search space or `asdict` has checked."""
    return kind(**values)


def seen_by(hp: Params, stage: int) -> Params:
    """Parameters as a stage sees them: those of later stages have their defaults.

    Args:
        hp: of the whole training.
        stage: its number, counted from 0.
    """
    own = fields(hp)
    late = {f.name: f.default for f in own if f.metadata["since"] > stage}
    return with_values(type(hp), {f.name: getattr(hp, f.name) for f in own} | late)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a trained stage leaves.

    Args:
        scores: of each training video of the trial that asks, in the order of its split; empty
            where the stage is not scored. Where it has `rules`, the columns of the `Segments` that
            were predicted of each video without annotations.
        weights: parameters of the module by name; empty where they are not kept.
    """

    scores: list[Scores]
    weights: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[TrainT]):
    """A training before a method's own, shared by all trials that agree in what it depends on.

    Args:
        method: its name for `load`.
        params: hp -> its train parameters, all that it sees of hp.
        steps: the train parameter that says its optimiser steps; with 0 there is no such stage.
        scored: whether it scores the training videos of the trial that follows.
        rules: of a scored stage, hp -> decode parameters: its scores become predictions, once for
            all trials that agree in them. None where the trial that follows takes the scores.
        starts: whether that trial starts with its weights, those that its module has.
    """

    method: str
    params: Callable[[TrainT], TrainParams]
    steps: str
    scored: bool = True
    rules: Callable[[TrainT], DecodeParams] | None = None
    starts: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the labels of a training split are made from.

    Args:
        split: the training videos.
        stage: what the stage before left; None where there was none.
        truth: gives the annotations, by id, of those videos that are annotated for the method: of
            all, or, of a semi-supervised one, of those in `labelled`. Reads them when called.
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
        name: what `load` takes.
        supervision: "point"; "full", trained on the labelled videos alone; or "semi", on all
            videos with the annotations of the labelled ones. The parameters of the last two say
            which these are, see `TrainParams.labelled`.
        train_params, decode_params: the parameter classes.
        build: (store, hp) -> module. Reads `store.info` and class embeddings, never annotations.
            Called under a seeded generator.
        loss: (model, batch, hp, step) -> weighted 0-d terms by name; the trial sums and logs each.
        scores: (model, batch, hp, grids) -> one Scores per video; no gradient, padding removed;
            `grids[i]` is the grid of video i. Batches at evaluation are never cropped.
        decode: (scores, grid, duration_s, decode_hp) -> Segments, sorted by score descending,
            inside [0, duration_s]. Sees no model and no train parameters.
        refresh: (model, batch, hp) -> Pseudo, or None for a method without pseudo-labels. The
            batch is uncropped. Every tensor is (B, ...); its
            trailing shape depends only on P, Q and C.
        label_segments: (pseudo, batch) -> for each video a (K, 3) array of the action
            instances its pseudo-labels state: first snippet, last snippet, class. To judge labels
            by; training does not use it. None where the method has no pseudo-labels. `batch` is
            None for labels that `labels` made.
        stage: the training before this one, or None.
        labels: (known, hp) -> Pseudo of every row of the split, made once before training: from
            annotations, or from what the stage left. None for a method without such labels.
        bank: (known, hp) -> tensors of any shape, made once before training, that every step sees
            whole. None for none.
        check: (store, hp) -> None, or a ConfigError or DataError where the method cannot train on
            that dataset with these parameters. Reads descriptions and files that parameters name,
            never annotations; loads no model, so that it is asked of many configurations before
            a search. `build` asks it too. None where any will do.
        network: (model, features, mask, hp) -> named tensors with a row a video, all of what
            `scores` keeps that the network makes, by operations that `torch.export` knows. None
            where scores depend on which candidates a video has.
        network_lengths: hp -> (least, step), the lengths T that `network` is exported for: least,
            least + step, ...; with step 0 the least alone. None for any.
        rules: values of a search space for data of one's own that follow from the data.
        groups: (labels, hp) -> rows of the split, one array for each kind of video that every
            batch holds `batch_size` of; the last one counts for epochs. None for all rows.
    """

    name: str
    supervision: str
    train_params: type[TrainT]
    decode_params: type[DecodeT]
    build: Callable[[FeatureStore, TrainT], nn.Module]
    loss: Callable[[Any, Batch, TrainT, Step], dict[str, Tensor]]
    scores: Callable[[Any, Batch, TrainT, list[Grid]], list[Scores]]
    decode: Callable[[Scores, Grid, float, DecodeT], Segments]
    refresh: Callable[[Any, Batch, TrainT], Pseudo] | None = None
    label_segments: Callable[[Pseudo, Any], list[NDArray[Any]]] | None = None
    stage: Stage[TrainT] | None = None
    labels: Callable[[Known, TrainT], Pseudo] | None = None
    bank: Callable[[Known, TrainT], Pseudo] | None = None
    check: Callable[[FeatureStore, TrainT], None] | None = None
    groups: Callable[[Pseudo, TrainT], list[NDArray[Any]]] | None = None
    network: Callable[[Any, Tensor, Tensor, TrainT], dict[str, Tensor]] | None = None
    network_lengths: Callable[[TrainT], tuple[int, int]] | None = None
    rules: tuple[Rule, ...] = ()


AnyMethod: TypeAlias = Method[TrainParams, DecodeParams]  # what parts that know no method see


def names() -> tuple[str, ...]:
    """Names of the methods that have a folder here, and of the variants in it.

    `VARIANTS` of a folder names the modules whose METHOD users may search.
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
        ConfigError: there is none of that name.
    """
    folder = Path(__file__).parent.joinpath(*name.split("."))
    if not folder.with_suffix(".py").is_file() and not (folder / "__init__.py").is_file():
        raise ConfigError(f"method: {name!r} is unknown; known are {', '.join(names())}")
    method: AnyMethod = import_module(f"ptal_ray.methods.{name}").METHOD
    return method
