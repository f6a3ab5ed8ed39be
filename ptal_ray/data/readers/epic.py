"""`epic`: the CSVs of EPIC-Kitchens-100, for verbs or for nouns, and a .npz or .npy a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ptal_ray.data.rates import positive
from ptal_ray.data.readers.release import Given, Release, feature_file
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import DataError

FPS, STRIDE, WINDOW, KEY = 30.0, 16.0, 32.0, "feats"  # of the SlowFast features by ActionFormer
_TIMES = ("start_timestamp", "stop_timestamp")
_FOLDERS = ("features", "*features*")


def read(given: Given) -> Release:
    """Train and validation (as test) of --task verb or noun.

    Raises:
        DataError: a file is missing, or has another layout.
    """
    train = given.file("EPIC_100_train.csv", "annotations/EPIC_100_train.csv")
    place, folder = train.parent, given.folder(*_FOLDERS)
    classes = _classes(place, given.task)
    info = place / "EPIC_100_video_info.csv"
    known = {row["video_id"]: row for _, row in _rows(info, "duration")}
    database: dict[str, dict[str, Any]] = {}
    for subset, path in (("train", train), ("test", place / "EPIC_100_validation.csv")):
        for line, row in _rows(path, f"{given.task}_class", *_TIMES):
            id = row["video_id"]
            if id not in known:
                raise DataError(f"{path}:{line}: video {id} is not in EPIC_100_video_info.csv")
            video = database.setdefault(id, _video(known[id], subset))
            if video["subset"] != subset:
                raise DataError(f"{path}:{line}: video {id} is also in EPIC_100_train.csv")
            video["annotations"].append(_instance(f"{path}:{line}", row, classes, given.task))
    keyed = replace(given, key=given.key or KEY)
    return Release(
        annotations=train,
        folder=folder,
        content={"classes": list(classes.values()), "database": database},
        files={id: feature_file([folder], id, keyed) for id in database},
        fps=given.fps or FPS,
        stride=given.stride or STRIDE,
        window=given.window or (0.0 if given.stride else WINDOW),
        points=given.points,
    )


def seconds(text: str) -> float:
    """Seconds of "01:02:03.45"; NaN where it is none."""
    total = 0.0
    try:
        for part in text.split(":"):
            total = total * 60 + float(part)
    except ValueError:
        return float("nan")
    return total


def _video(row: dict[str, str], subset: str) -> dict[str, Any]:
    return {
        "subset": subset,
        "duration": row["duration"],
        "annotations": [],
        **({"fps": row["fps"]} if positive(row.get("fps")) else {}),
    }


def _instance(place: str, row: dict[str, str], classes: dict[str, str], task: str) -> Any:
    """An instance; its times are checked by the import."""
    if (index := row[f"{task}_class"]) not in classes:
        raise DataError(f"{place}: {task}_class {index!r} is not one of the {task} classes")
    return {
        "segment": [seconds(row[name]) for name in _TIMES],
        "label": classes[index],
    }


def _classes(place: Path, task: str) -> dict[str, str]:
    """Number, as text -> name, in the order of the numbers."""
    names = (f"EPIC_100_{task}_classes.csv", f"EPIC_100_{task}_classes_v2.csv")
    path = next((place / name for name in names if (place / name).is_file()), place / names[0])
    return {row["id"]: row["key"] for _, row in _rows(path, "id", "key", video=False)}


def _rows(path: Path, *columns: str, video: bool = True) -> list[tuple[int, dict[str, str]]]:
    """(line number, values) of a CSV that has `columns`, and video_id."""
    names, rows = read_csv(path)
    if missing := {*columns, *(("video_id",) if video else ())} - set(names):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    return rows
