"""`sfnet`: arrays of all videos in <NAME>-Annotations, single frames without a header."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.features.feature_file import UNREADABLE
from ptal_ray.data.readers.release import Given, Release, database, feature_file
from ptal_ray.data.readers.two_stream import FPS, STRIDE
from ptal_ray.data.user_files import nfc, read_json
from ptal_ray.errors import DataError

_COLUMNS = ("video_id", "time_s", "class")
_ROLES = {"validation": "train", "training": "train", "train": "train", "test": "test"}


def read(given: Given) -> Release:
    """Arrays with one value per video: names, subsets, durations, segments, labels.

    Arrays of Python objects are pickled and are never loaded: the error prints a command that
    converts one to JSON, or to one .npy per video.

    Raises:
        DataError: an array is missing, is pickled, or has another length.
    """
    place = given.file("*-Annotations", ".")
    names = _texts(place, "videoname")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise DataError(f"{place}: videoname has {twice[0]} twice; keep one of them")
    columns = {
        "subset": _texts(place, "subset"),
        "duration": _values(place, "duration"),
        "segments": _values(place, "segments"),
        "labels": _values(place, "labels"),
    }
    for name, values in columns.items():
        if len(values) != len(names):
            raise DataError(f"{place}: {len(values)} values in {name}, {len(names)} in videoname")
    rates = _rates(given)
    folder = _folder(given)
    videos = {
        id: _video(f"{place}: video {id}", rates.get(id), *rest)
        for id, *rest in zip(names, *columns.values(), strict=True)
    }
    return Release(
        annotations=place,
        folder=folder,
        content={"database": videos},
        files={id: feature_file([folder], id, given) for id in names},
        fps=given.fps or ("json" if rates else FPS),
        stride=given.stride or STRIDE,
        window=given.window,
        points=given.points or next(iter(sorted((place / "single_frames").glob("*.txt"))), None),
        point_columns=_COLUMNS,
    )


def _video(
    place: str, fps: Any, subset: str, duration_s: Any, segments: Any, labels: Any
) -> dict[str, Any]:
    for name, values in (("segments", segments), ("labels", labels)):
        if not isinstance(values, list):
            raise DataError(f"{place}: {name} are {values!r}; a list is needed")
    if len(segments) != len(labels):
        raise DataError(f"{place}: {len(segments)} segments, {len(labels)} labels")
    return {
        "subset": _ROLES.get(subset.lower(), subset),
        "duration": duration_s,
        "annotations": [
            {"segment": segment, "label": nfc(str(label).strip())}
            for segment, label in zip(segments, labels, strict=True)
        ],
    } | ({"fps": fps} if fps else {})


def _rates(given: Given) -> dict[str, Any]:
    """Frame rates of the videos by the *groundtruth.json beside the folder's arrays."""
    path = given.inside("*groundtruth.json")
    if path is None:
        return {}
    _, videos = database(path)
    return {id: video["fps"] for id, video in videos.items() if "fps" in video}


def _folder(given: Given) -> Path:
    """The folder of one .npy a video; features of all videos in one file are pickled."""
    joint = given.inside("*JOINTFeatures.npy")
    if given.features or joint is None or (given.root and (given.root / "features").is_dir()):
        return given.folder("features")
    names = f"{joint.name.split('-')[0]}-Annotations/videoname.npy"
    raise DataError(
        f"{joint}: an array of Python objects, which only running the pickle in it can load; where "
        f'you trust the file, run in its folder: python -c "import os, numpy as n; '
        f"os.mkdir('features'); [n.save('features/' + v.decode(), f) for v, f in "
        f"zip(n.load('{names}'), n.load('{joint.name}', allow_pickle=True, encoding='bytes'))]\""
    )


def _texts(place: Path, name: str) -> list[str]:
    values = _values(place, name)
    return [nfc(v.decode() if isinstance(v, bytes) else str(v)) for v in values]


def _values(place: Path, name: str) -> list[Any]:
    """The values of an array, one a video, of <name>.json or <name>.npy."""
    text, path = place / f"{name}.json", place / f"{name}.npy"
    if text.is_file():
        return _json(text)
    try:
        values: list[Any] = np.load(path, allow_pickle=False).reshape(-1).tolist()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it is part of the released annotations") from error
    except UNREADABLE as error:
        raise DataError(
            f"{path}: an array of Python objects, which only running the pickle in it can load, or "
            'no .npy; where you trust the file, run in its folder: python -c "import json, numpy '
            f"as n, pathlib as p; p.Path('{text.name}').write_text(json.dumps(n.load("
            f"'{path.name}', allow_pickle=True).tolist(), default=lambda v: v.decode() if "
            'isinstance(v, bytes) else v.tolist()))"'
        ) from error
    return values


def _json(path: Path) -> list[Any]:
    found = read_json(path)
    if not isinstance(found, list):
        raise DataError(f"{path}: must be a list with one value per video")
    return found
