"""`bmn`: ActivityNet with a CSV a video, every video resampled to the same number of snippets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptal_ray.data.features.feature_file import FeatureFile
from ptal_ray.data.rates import positive
from ptal_ray.data.readers.release import Given, Release, feature_file, json_object
from ptal_ray.data.user_files import is_file, read_csv
from ptal_ray.errors import DataError

_ANNOTATIONS = ("anet_anno_action.json", "*anno*.json")
_INFO = ("video_info_new.csv", "video_info*.csv", "annotations/video_info*.csv")
_FOLDERS = ("csv_mean_100", "features", "*csv*/csv_mean_100", "*csv*")


def read(given: Given) -> Release:
    """A snippet is a hundredth of the time that the features cover, not of the duration.

    BMN's features end with the last complete unit of 16 frames: they cover featureFrame / numFrame
    of the video. Frame numbers of points use the frame rates of video_info_new.csv.

    Raises:
        DataError: a file has another layout, or there is no feature file.
    """
    annotations, folder = given.file(*_ANNOTATIONS), given.folder(*_FOLDERS)
    info = given.inside(*_INFO)
    if info is None:
        raise DataError(
            f"{given.root}: no video_info_new.csv, which gives the subsets; add it there"
        )
    entries, subsets = json_object(annotations), _subsets(info)
    files = {id: feature_file([folder], id, given) for id in entries}
    snippets = _snippets(files, folder)
    database = {
        id: _video(annotations, id, entry, subsets.get(id, ""), snippets)
        for id, entry in entries.items()
    }
    return Release(
        annotations=annotations,
        folder=folder,
        content={"database": database},
        files=files,
        fps="json",
        stride=1.0,
        points=given.points or given.inside("point*/*.csv", "point*.csv"),
        point_fps=info,
    )


def _video(path: Path, id: str, entry: Any, subset: str, snippets: int) -> dict[str, Any]:
    """A video of the ActivityNet layout whose "frames" are snippets."""
    if not isinstance(entry, dict):
        raise DataError(f"{path}: video {id}: {entry!r}; must be an object")
    duration_s = positive(entry.get("duration_second"))
    frames, covered = (positive(entry.get(n)) for n in ("duration_frame", "feature_frame"))
    if duration_s is None or frames is None or covered is None:
        raise DataError(
            f"{path}: video {id}: duration_second, duration_frame and feature_frame must be "
            "positive numbers"
        )
    feature_s = duration_s * covered / frames
    return {
        "subset": subset,
        "duration": duration_s,
        "annotations": entry.get("annotations", []),
        "fps": snippets / feature_s,
        "feature_seconds": feature_s,
    }


def _snippets(files: dict[str, FeatureFile], folder: Path) -> int:
    """T of the first feature file that is there; all have the same."""
    first = next((file for file in files.values() if is_file(file.file)), None)
    if first is None:
        raise DataError(f"{folder}: no features for any annotated video; check --features")
    return first.shape()[0]


def _subsets(path: Path) -> dict[str, str]:
    columns, rows = read_csv(path)
    if missing := {"video", "subset"} - set(columns):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    return {row["video"]: row["subset"] for _, row in rows}
