"""`actionformer`: a JSON of the ActivityNet layout and a .npy or .npz for each video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptal_ray.data.rates import RateSource, positive
from ptal_ray.data.readers.release import Given, Release, database, feature_file
from ptal_ray.errors import ConfigError

_FOLDERS = ("features", "*features*", "feats", "data")
_JSON = ("annotations/*.json", "*.json")


def read(given: Given) -> Release:
    """The JSON of annotations/ and the features of the folder.

    Stride and window are "feat_stride" and "num_frames" of the configuration for these features.
    The frame rate of a video is that in the JSON, or its frames divided by its duration.

    Raises:
        ConfigError: the stride is missing.
        DataError: the JSON is of another layout.
    """
    annotations, folder = given.file(*_JSON), given.folder(*_FOLDERS)
    content, videos = database(annotations)
    return framed(given, annotations, folder, content, videos)


def framed(
    given: Given,
    annotations: Path,
    folder: Path,
    content: Mapping[str, Any],
    videos: Mapping[str, dict[str, Any]],
) -> Release:
    """The release of `videos` with features in one folder and stride `given.stride`.

    Raises:
        ConfigError: the stride is missing.
    """
    if not given.stride and not isinstance(given.fps, Path):
        raise ConfigError("pass --stride: the number of frames between snippets")
    rated = {id: with_rate(video) for id, video in videos.items()}
    fps: RateSource = given.fps or "json"
    return Release(
        annotations=annotations,
        folder=folder,
        content=dict(content) | {"database": rated},
        files={id: feature_file([folder], id, given) for id in videos},
        fps=fps,
        stride=given.stride,
        window=given.window,
        points=given.points,
    )


def with_rate(video: dict[str, Any]) -> dict[str, Any]:
    """A video with "fps"; if it has none, its frames divided by its duration."""
    frames = positive(video.get("frame") or video.get("num_frames"))
    duration_s = positive(video.get("duration"))
    if "fps" in video or frames is None or duration_s is None:
        return video
    return video | {"fps": frames / duration_s}
