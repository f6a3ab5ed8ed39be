"""What APL needs of a detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.method import Batch, DecodeParams, Pseudo, Step, TrainParams
from ptal_ray.methods.rules import Rule


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector as plain functions; `hp` is an instance of `train_params`.

    Args:
        train_params, decode_params: the parameter classes of APL on it.
        build: (store, hp) -> module.
        check: see `Method`.
        run: (model, batch, step) -> its outputs for a training batch.
        levels: outputs -> (B, T_l, H) features, level l with a position every 2^l snippets.
        represent: (model, batch, step) -> these features alone, without any head.
        terms: (model, outputs, batch, instances of the crops, hp, step, unlabelled) -> weighted
            0-d terms; `unlabelled` is (B,) bool or None for none.
        scores, decode: see `Method`.
        network, network_lengths: see `Method`.
        label_rules: hp -> the decode parameters of predictions that may become labels.
        rules, rates: its sizes, and its learning rate, that follow from the data, see `Method`.
    """

    train_params: type[TrainParams]
    decode_params: type[DecodeParams]
    build: Callable[[FeatureStore, Any], nn.Module]
    check: Callable[[FeatureStore, Any], None]
    run: Callable[[Any, Batch, Step], Any]
    levels: Callable[[Any], list[Tensor]]
    represent: Callable[[Any, Batch, Step], list[Tensor]]
    terms: Callable[[Any, Any, Batch, Pseudo, Any, Step, Tensor | None], dict[str, Tensor]]
    scores: Callable[[Any, Batch, Any, list[Grid]], list[Scores]]
    decode: Callable[[Scores, Grid, float, Any], Segments]
    label_rules: Callable[[Any], DecodeParams]
    network: Callable[[Any, Tensor, Tensor, Any], dict[str, Tensor]] | None = None
    network_lengths: Callable[[Any], tuple[int, int]] | None = None
    rules: tuple[Rule, ...] = ()
    rates: tuple[Rule, ...] = ()
