"""`lacp`, `potloc`: rgb and flow in folders of their own, frame rates in fps_dict.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptal_ray.data.features.feature_file import FeatureFile, side_by_side
from ptal_ray.data.rates import positive
from ptal_ray.data.readers.release import Given, Release, database, feature_file, json_object
from ptal_ray.data.user_files import is_file
from ptal_ray.errors import DataError

FPS, STRIDE = 25.0, 16.0  # of the released I3D features of THUMOS14
_STREAMS = ("rgb", "flow")
_SPLITS = ("train", "test", "validation", "val")
_POINTS = ("point_gaussian/point_labels.csv", "point_labels/point_gaussian.csv", "point*/*.csv")


def read(given: Given) -> Release:
    """Concatenates rgb and flow; a video without a duration is as long as its features.

    Raises:
        DataError: a file has another layout, or is missing for a video without a duration.
    """
    annotations, folder = given.file("gt.json", "gt*.json"), given.folder("features")
    content, videos = database(annotations)
    files = {id: _streams(folder, id, given) for id in videos}
    fps, stride = given.fps or FPS, given.stride or STRIDE
    stride_s = stride / fps if isinstance(fps, int | float) else 0.0
    rates = _rates(given.inside("fps_dict.json", "fps*.json"))
    completed = {
        id: _completed(video, rates.get(id), files[id], stride_s) for id, video in videos.items()
    }
    lists = split_lists(given)
    return Release(
        annotations=annotations,
        folder=folder,
        content=dict(content) | {"database": completed},
        files=files,
        fps=fps,
        stride=stride,
        window=given.window,
        points=given.points or given.inside(*_POINTS),
        lists=lists,
    )


def split_lists(given: Given) -> dict[str, Path] | None:
    """split_train.txt and split_test.txt, where the folder has both."""
    found = {name: given.inside(f"split_{name}.txt") for name in ("train", "test")}
    lists = {name: path for name, path in found.items() if path is not None}
    return lists if len(lists) == len(found) else None


def _streams(folder: Path, id: str, given: Given) -> FeatureFile:
    """Both streams of a video, or the one file that holds both."""
    parts = []
    for stream in _STREAMS:
        folders = [folder / split / stream for split in _SPLITS]
        folders += [folder / stream / split for split in _SPLITS]
        parts.append(feature_file([*folders, folder / stream], id, given))
    if not any(is_file(part.file) for part in parts):
        whole = feature_file([*(folder / split for split in _SPLITS), folder], id, given)
        if is_file(whole.file):
            return whole
    return side_by_side(parts)


def _rates(path: Path | None) -> Mapping[str, Any]:
    return json_object(path) if path else {}


def _completed(
    video: dict[str, Any], fps: Any, file: FeatureFile, stride_s: float
) -> dict[str, Any]:
    """A video with its frame rate, and with a duration, from its features where it states none.

    Without features it ends with its last instance: the import then names the features alone.
    """
    rated = video | ({"fps": fps} if positive(fps) else {})
    if positive(video.get("duration")) or not stride_s:
        return rated
    try:
        duration_s = file.shape()[0] * stride_s
    except DataError:
        ends = map(positive, _ends(video.get("annotations")))
        duration_s = max((end for end in ends if end), default=stride_s)
    return rated | {"duration": duration_s}


def _ends(items: Any) -> list[Any]:
    """Ends of instances, of whatever stands in their place."""
    found = items if isinstance(items, list) else []
    segments = (item.get("segment") for item in found if isinstance(item, dict))
    return [end for segment in segments if isinstance(segment, list) for end in segment[-1:]]
