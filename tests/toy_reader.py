"""`toy`: features `<id>.npy` and a line `id subset duration start end label` for each instance.

A reader, whole: what `CONTRIBUTING.md` copies to `ptal_ray/data/readers/toy.py`.
"""

from __future__ import annotations

from typing import Any

from ptal_ray.data.readers.release import Given, Release
from ptal_ray.data.user_files import read_lines


def read(given: Given) -> Release:
    """What the importer takes of the folder.

    Raises:
        DataError: a file is missing.
    """
    annotations = given.file("instances.txt")
    videos: dict[str, Any] = {}
    for _, line in read_lines(annotations):
        id, subset, duration, start, end, label = line.split()
        found = {"subset": subset, "duration": float(duration), "annotations": []}
        instance = {"segment": [float(start), float(end)], "label": label}
        videos.setdefault(id, found)["annotations"].append(instance)
    return Release(
        annotations=annotations,
        folder=given.folder("features"),
        content={"database": videos},
        fps=given.fps or 1.0,
        stride=given.stride or 1.0,
    )
