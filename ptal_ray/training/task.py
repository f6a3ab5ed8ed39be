"""The objects of a configuration: method, parameters, data and videos."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.drawn_points import redrawn
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.methods.method import AnyMethod, TrainParams, load, with_values
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.selection import ground_truth
from ptal_ray.training.supervision import split_ids, visible_ids, visible_points


@dataclass(frozen=True, kw_only=True)
class Task:
    """A configuration with its method, parameters and data.

    Args:
        config: of the trial.
        method: its method.
        hp: train parameters.
        store: the data.
        ids: of the training videos.
        labelled: training videos whose annotations or points may be used.
        score_ids: of the videos to score.
    """

    config: TrialConfig
    method: AnyMethod
    hp: TrainParams
    store: FeatureStore
    ids: tuple[str, ...]
    labelled: tuple[str, ...]
    score_ids: tuple[str, ...]

    @staticmethod
    def of(config: TrialConfig) -> Task:
        """The task of a configuration.

        Raises:
            DataError: a split is empty.
        """
        method, store = load(config.method), FeatureStore.open(config.store)
        hp = with_values(method.train_params, config.train)
        fit, score_ids = split_ids(store, config, hp)
        store = redrawn(store, config.points)
        ids, labelled = visible_ids(store, fit, method, hp)
        return Task(
            config=config, method=method, hp=hp, store=store, ids=ids, labelled=labelled,
            score_ids=score_ids,
        )  # fmt: skip

    @property
    def annotated(self) -> tuple[str, ...]:
        """Ids whose annotations may be used; empty for point supervision."""
        return () if self.method.supervision == "point" else self.labelled

    def truth(self) -> dict[str, Segments]:
        """The annotations of `labelled`, by id; read when called."""
        return ground_truth(self.store, self.labelled, "val")

    def training_split(self, device: torch.device) -> PackedSplit:
        """The training videos with their points."""
        points = visible_points(self.store, self.ids, self.method, self.truth)
        return PackedSplit(
            self.store, self.ids, device, points=points,
            resample_to=self.hp.resample_to, sampling=self.hp.resampling,
        )  # fmt: skip

    def split(self, ids: tuple[str, ...], device: torch.device) -> PackedSplit:
        """Videos to score."""
        return PackedSplit(
            self.store, ids, device,
            resample_to=self.hp.resample_to, sampling=self.hp.resampling,
        )  # fmt: skip
