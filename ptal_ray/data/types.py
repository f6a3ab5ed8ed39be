"""Values that travel between data, methods and evaluation. Seconds end in _s, snippets in _t."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the snippets of a video lie in time.

    Snippet t covers [offset_s + t * stride_s, offset_s + (t + 1) * stride_s).
    """

    stride_s: float
    offset_s: float = 0.0

    def seconds(self, edge_t: Any) -> Any:
        """Seconds of the left edge of snippet `edge_t` (scalar or array, may be fractional)."""
        return edge_t * self.stride_s + self.offset_s

    def snippets(self, time_s: Any) -> Any:
        """Fractional snippet coordinate of `time_s`; its floor is the snippet index."""
        return (time_s - self.offset_s) / self.stride_s


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Columnar segments of one video.

    Args:
        start_s: (N,) float64, seconds.
        end_s: (N,) float64, seconds.
        label: (N,) int64, index into the classes of the dataset.
        score: (N,) float64; 1 for ground truth.
    """

    start_s: FloatArray
    end_s: FloatArray
    label: IntArray
    score: FloatArray

    def __len__(self) -> int:
        return len(self.start_s)

    def take(self, index: Any) -> Segments:
        """The segments at `index` (integers, a boolean mask or a slice)."""
        return Segments(
            start_s=self.start_s[index],
            end_s=self.end_s[index],
            label=self.label[index],
            score=self.score[index],
        )

    @staticmethod
    def concatenate(parts: Sequence[Segments]) -> Segments:
        """All segments of at least one part, in order."""
        return Segments(
            start_s=np.concatenate([p.start_s for p in parts]),
            end_s=np.concatenate([p.end_s for p in parts]),
            label=np.concatenate([p.label for p in parts]),
            score=np.concatenate([p.score for p in parts]),
        )

    @staticmethod
    def empty() -> Segments:
        """No segments."""
        return Segments(
            start_s=np.zeros(0), end_s=np.zeros(0), label=np.zeros(0, np.int64), score=np.zeros(0)
        )


@dataclass(frozen=True, kw_only=True)
class Points:
    """Point labels of one video: one annotated moment per action instance.

    Args:
        time_s: (P,) float64, seconds, ascending.
        label: (P,) int64.
    """

    time_s: FloatArray
    label: IntArray

    def __len__(self) -> int:
        return len(self.time_s)


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video: features (T, D) float16 or float32, read-only and zero-copy where the store is."""

    id: str
    features: FloatArray
    duration_s: float
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is true of a whole feature store.

    Args:
        name: dataset name, e.g. "thumos14".
        classes: class names; a label is an index into them.
        feature_dim: D.
        grid: stride and offset where all videos share them; None where each has its own.
        features: "real" or e.g. "simulated-v1 D=128 standard seed=0"; follows every table.
        content_hash: sha256 over features, annotations, points and this information.
        note: one line that says what the data is, shown wherever results on it are.
    """

    name: str
    classes: tuple[str, ...]
    feature_dim: int
    grid: Grid | None
    features: str
    content_hash: str
    note: str = ""

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What decoding needs of one video, and all it sees: arrays named by the method."""

    id: str
    arrays: dict[str, NDArray[Any]]
