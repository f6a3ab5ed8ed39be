"""What a training split is like, in a few numbers: what sizes of models and batches follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptal_ray.data.splits import most_folds
from ptal_ray.data.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Numbers of the training videos of a dataset. Test videos are not looked at.

    Args:
        videos: training videos, 1 or more.
        dim: D, numbers of a snippet.
        median_t, long_t: snippets of a video: the median, and what nine of ten videos do not
            exceed.
        points_a_video: point labels of a video, the mean; of the annotated videos instances, where
            videos are annotated for the method.
        longest_action_t: snippets of the longest annotated instance; 0 where no annotation is read.
        gpu: whether trials train on a GPU.
        groups: of training videos, which folds do not split; 0 if folds may split the videos in any
            way.
    """

    videos: int
    dim: int
    median_t: int
    long_t: int
    points_a_video: float
    longest_action_t: float = 0.0
    gpu: bool = False
    groups: int = 0


def facts(store: FeatureStore, annotated: Sequence[str], gpu: bool) -> Facts:
    """The numbers of a dataset.

    Args:
        store: the dataset.
        annotated: ids of the training videos whose annotations may be read; none of a method that
            learns from points.
        gpu: whether trials train on a GPU.
    """
    ids = store.ids("train")
    lengths = np.array([store.length(id) for id in ids] or [1])
    labels = [len(store.annotations(id)) for id in annotated] or [
        len(store.points(id)) for id in ids
    ]
    groups = most_folds(store)
    return Facts(
        videos=max(len(ids), 1),
        dim=store.info.feature_dim,
        median_t=_quantile(lengths, 0.5),
        long_t=_quantile(lengths, 0.9),
        points_a_video=float(np.mean(labels or [0])),
        longest_action_t=max((_longest_t(store, id) for id in annotated), default=0.0),
        gpu=gpu,
        groups=groups if groups < len(ids) else 0,
    )


def _quantile(lengths: np.ndarray, q: float) -> int:
    return int(np.quantile(lengths, q, method="higher"))


def _longest_t(store: FeatureStore, id: str) -> float:
    """Snippets of the longest instance of a video, as far as it lies in the video."""
    own = store.annotations(id)
    lasts = np.minimum(own.end_s, store.duration_s(id)) - own.start_s
    return max(float(lasts.max(initial=0.0)) / store.grid(id).stride_s, 0.0)
