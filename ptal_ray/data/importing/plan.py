"""What an import is asked for, and all that it will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.data.choices import AUTO
from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.features.normalize import Scale
from ptal_ray.data.importing.groups import GroupSource
from ptal_ray.data.point_noise import PointNoise
from ptal_ray.data.rates import Frames, RateSource
from ptal_ray.data.types import Grid, Points, Segments

STRAY = 0.05  # share of instances outside their video, or points of unknown videos, still believed


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is imported.

    Args:
        name: of the dataset.
        features: folder of <id>.npy, each (T, D).
        annotations: the JSON.
        fps: frames per second that `stride` and `window` count: one value, "json" for what the
            annotations give each video, or a CSV with columns video and fps and, where videos
            differ in them, stride and window.
        stride: frames from snippet to snippet of the videos that have none of their own.
        window: frames that a snippet sees, likewise; 0 means the stride.
        points: the CSV, or None to simulate points.
        point_fps: frames per second of the CSV's frame numbers, as `fps`; None means "json".
        simulated_points: one of `choices.KINDS`; used without `points`.
        point_noise: what is done to simulated points.
        seed: of simulated points.
        lists: "train" and "test" -> files of video ids, in place of the subsets of the JSON.
        allow_length: import features that cover another time than their video lasts.
        allow_points: import points of which many lie in no instance of their class.
        drop_invalid: leave out instances whose end is not after their start or whose start is
            negative.
        transpose: whether --transpose was passed; without `files`, they hold (D, T) then.
        note: a line on the data; empty takes what is known of `name`.
        content: what a reader made of a released folder, in the ActivityNet layout; in place of
            the JSON, whose path then only names the place in messages.
        files: video id -> its features, likewise in place of <id>.npy.
        point_columns: names of the columns of `points` where its first line has none.
        exclude: ids of videos to leave out.
        drop_labels: classes to leave out, with their instances and points.
        normalize: store z-scores of the features, by mean and spread of the training split.
        group: which videos belong together: a CSV, or a regular expression on the ids.
        of_recordings: whether `files` are features of windows of samples, which `stride` and
            `window` count.
        channels: of recordings: the names of their columns; () if no header gives them.
        transposed, every: what `files` do with the files as released, see
            `data/features/preparation.py`.
    """

    name: str
    features: Path
    annotations: Path
    fps: RateSource
    stride: float = 0.0
    window: float = 0.0
    points: Path | None = None
    point_fps: RateSource | None = None
    simulated_points: str = ""
    point_noise: PointNoise = PointNoise()
    seed: int = 0
    lists: dict[str, Path] | None = None
    allow_length: bool = False
    allow_points: bool = False
    drop_invalid: bool = False
    transpose: bool = False
    note: str = ""
    content: Mapping[str, Any] | None = None
    files: Mapping[str, FeatureFile] | None = None
    point_columns: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    drop_labels: frozenset[str] = frozenset()
    normalize: bool = False
    group: GroupSource | None = None
    of_recordings: bool = False
    channels: tuple[str, ...] = ()
    transposed: bool = False
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """A video to import; its features should cover `feature_s` seconds."""

    id: str
    subset: str
    features: FeatureFile
    duration_s: float
    instances: Segments
    points: Points
    frames: Frames
    feature_s: float
    stated_fps: float | None
    group: str = ""

    @property
    def file(self) -> Path:
        """What messages on its features name."""
        return self.features.file

    @property
    def grid(self) -> Grid:
        """Where its snippets lie."""
        return self.frames.grid


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that an import will do.

    Args:
        source: what is imported.
        classes: class names.
        videos: in the order of the annotations.
        snippets: T by id, of the videos whose feature file has a sound header.
        remarks: count by what it counts: left out, clamped.
        examples: some of what `remarks` counts.
        problems: a line each; an import needs none.
        dtype: of the store; "auto" before the features are read.
        scale: of the features as they are stored, known after they are read.
    """

    source: Source
    classes: tuple[str, ...]
    videos: tuple[PlannedVideo, ...]
    snippets: dict[str, int]
    remarks: dict[str, int]
    examples: dict[str, list[str]]
    problems: tuple[str, ...]
    dtype: str = AUTO
    scale: Scale = Scale()
