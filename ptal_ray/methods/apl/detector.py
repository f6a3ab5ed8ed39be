"""The interface of a detector for APL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from torch import Tensor, nn

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.apl.apl_params import AplT
from ptal_ray.methods.method import Batch, DecodeT, Pseudo, Step
from ptal_ray.methods.rules import Rule


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """The videos of a batch with pseudo-labels, and their weight.

    Args:
        videos: (B,) bool.
        weight: of each; annotated videos have 1.
    """

    videos: Tensor
    weight: float


@dataclass(frozen=True, kw_only=True)
class Detector(Generic[AplT, DecodeT]):
    """A detector as plain functions; `hp` is an instance of `train_params`.

    Args:
        train_params, decode_params: the parameter classes of APL on it.
        build: (store, hp) -> module.
        check: see `Method`.
        run: (model, batch, step) -> its outputs for a training batch.
        levels: outputs -> (B, T_l, H) features, level l with a position every 2^l snippets.
        represent: (model, batch, step) -> only these features, without heads.
        terms: (model, outputs, batch, instances of the crops, hp, step, unlabelled) -> weighted
            0-d terms; `unlabelled` is an `Unlabelled`, or None for none.
        scores, decode: see `Method`.
        network, network_lengths: see `Method`.
        label_rules: hp -> the decode parameters of predictions that may become labels.
        rules, rates: rules for its sizes, and for its learning rate, see `Method`.
    """

    train_params: type[AplT]
    decode_params: type[DecodeT]
    build: Callable[[FeatureStore, AplT], nn.Module]
    check: Callable[[FeatureStore, AplT], None]
    run: Callable[[Any, Batch, Step], Any]
    levels: Callable[[Any], list[Tensor]]
    represent: Callable[[Any, Batch, Step], list[Tensor]]
    terms: Callable[[Any, Any, Batch, Pseudo, AplT, Step, Unlabelled | None], dict[str, Tensor]]
    scores: Callable[[Any, Batch, AplT], list[Scores]]
    decode: Callable[[Scores, Grid, float, DecodeT], Segments]
    label_rules: Callable[[AplT], DecodeT]
    network: Callable[[Any, Tensor, Tensor, AplT], dict[str, Tensor]] | None = None
    network_lengths: Callable[[AplT], tuple[int, int]] | None = None
    rules: tuple[Rule, ...] = ()
    rates: tuple[Rule, ...] = ()
