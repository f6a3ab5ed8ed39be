"""`hrpro`: gt_full.json with frame rates, split lists, and one .npy a video in train/ and test/."""

from __future__ import annotations

from ptal_ray.data.readers.release import Given, Release, database, feature_file
from ptal_ray.data.readers.two_stream import FPS, STRIDE, split_lists

_POINTS = ("point_labels/point_gaussian.csv", "point_labels/*.csv")


def read(given: Given) -> Release:
    """Features at 25 frames a second, 16 apart, unless flags say otherwise.

    Frame numbers of points count the frames of each video, whose rate the JSON has.

    Raises:
        DataError: a file is of another layout.
    """
    annotations, folder = given.file("gt_full.json", "gt*.json"), given.folder("features")
    content, videos = database(annotations)
    folders = [folder / "train", folder / "test", folder]
    return Release(
        annotations=annotations,
        folder=folder,
        content=content,
        files={id: feature_file(folders, id, given) for id in videos},
        fps=given.fps or FPS,
        stride=given.stride or STRIDE,
        window=given.window,
        points=given.points or given.inside(*_POINTS),
        lists=split_lists(given),
    )
