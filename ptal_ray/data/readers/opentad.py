"""`opentad`: as `actionformer`, with lists of missing videos and of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptal_ray.data.readers.actionformer import framed
from ptal_ray.data.readers.release import Given, Release, database, lines
from ptal_ray.data.video_ids import bare

AMBIGUOUS = "Ambiguous"
_FOLDERS = ("features", "features/*", "*features*", "*feature*", "data")
_JSON = ("annotations/*anno*.json", "*anno*.json", "annotations/*.json", "*.json")
_CLASSES = ("annotations/category_idx.txt", "category_idx.txt")


def read(given: Given) -> Release:
    """The JSON and the features, without the videos in missing_files.txt of the features.

    Instances of the class "Ambiguous" are left out, as OpenTAD does. Classes have the order of
    category_idx.txt if it exists.

    Raises:
        ConfigError: the stride is missing.
        DataError: a file is of another layout.
    """
    annotations, folder = given.file(*_JSON), given.folder(*_FOLDERS)
    content, videos = database(annotations)
    missing = _names(folder / "missing_files.txt")
    kept = {id: _certain(video) for id, video in videos.items() if bare(id) not in missing}
    if classes := given.inside(*_CLASSES):
        content = content | {"classes": [name for name in lines(classes) if name != AMBIGUOUS]}
    return framed(given, annotations, folder, content, kept)


def _names(path: Path) -> set[str]:
    """Ids of a list of files, one a line, with or without folder, extension and "v_"."""
    if not path.is_file():
        return set()
    names = (Path(line.split()[0]).name for line in lines(path))
    return {
        bare(name.removesuffix(".npy").removesuffix(".npz").removesuffix(".mp4")) for name in names
    }


def _certain(video: dict[str, Any]) -> dict[str, Any]:
    """`video` without its ambiguous instances."""
    items = video.get("annotations")
    if not isinstance(items, list):
        return video
    kept = [i for i in items if not (isinstance(i, dict) and i.get("label") == AMBIGUOUS)]
    return video | {"annotations": kept}
