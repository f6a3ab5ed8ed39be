"""`plain`: <id>.npy of shape (T, D), an ActivityNet-style JSON and a points CSV."""

from __future__ import annotations

from ptal_ray.data.readers.release import Given, Release


def read(given: Given) -> Release:
    """The files of the flags, or features/, gt.json and points.csv of the folder."""
    return Release(
        annotations=given.file("gt.json"),
        folder=given.folder("features"),
        fps=given.fps or "json",
        stride=given.stride,
        window=given.window,
        points=given.points or given.inside("points.csv"),
    )
