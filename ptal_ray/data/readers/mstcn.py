"""`mstcn`: a label for each frame of a video, features (D, T), and bundles of splits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ptal_ray.data.class_names import known
from ptal_ray.data.features.feature_file import FeatureFile, npy, sliced
from ptal_ray.data.readers.release import Given, Release, lines, spelled
from ptal_ray.data.user_files import read_lines
from ptal_ray.errors import ConfigError, DataError

BACKGROUND = ("background", "SIL", "action_start", "action_end")  # GTEA; Breakfast; 50 Salads


def read(given: Given) -> Release:
    """Consecutive frames with one label are an instance, except --background (BACKGROUND).

    The features have one column per frame; --stride N keeps every N-th.

    Raises:
        ConfigError: --fps is missing, or the stride is not a whole number.
        DataError: a file is of another layout.
    """
    if not isinstance(given.fps, int | float):
        raise ConfigError("pass --fps NUMBER: frames per second of the transcripts")
    if given.stride != int(given.stride):
        raise ConfigError(f"--stride {given.stride:g}: must be a whole number of frames")
    folder, truth = given.folder("features"), _transcripts(given)
    mapping = truth.parent / "mapping.txt"
    names = [line.split(maxsplit=1)[-1] for line in lines(mapping)]
    background = _background(given, names, mapping)
    bundles = {name: _bundle(given, name) for name in ("train", "test")}
    if both := sorted({*bundles["train"]} & {*bundles["test"]}):
        raise DataError(
            f"{given.root}: {both[0]} is in both bundles of split {given.split}, as {len(both)} "
            "videos; take each from one of them"
        )
    files, database = {}, {}
    for subset, ids in bundles.items():
        for id in ids:
            frames = _frames(spelled(truth / f"{id}.txt"), names, mapping)
            database[id] = _video(frames, subset, given.fps, background)
            files[id] = _features(spelled(folder / f"{id}{given.suffix or '.npy'}"), given)
    return Release(
        annotations=mapping,
        folder=folder,
        content={"classes": [n for n in names if n not in background], "database": database},
        files=files,
        fps=given.fps,
        stride=given.stride or 1.0,
        window=1.0,
        points=given.points,
        transposed=not given.transpose,
        every=int(given.stride or 1),
    )


def _transcripts(given: Given) -> Path:
    if given.annotations:
        return given.annotations
    return given.file("groundTruth", "groundtruth")


def _bundle(given: Given, subset: str) -> list[str]:
    """Ids of a split; in a bundle each ends with .txt."""
    name = f"splits/{subset}.split{given.split}.bundle"
    path = given.inside(name)
    if path is None:
        raise DataError(f"{given.root}: no {name}; pass --split with the number of one of splits/")
    return [line.removesuffix(".txt") for line in lines(path)]


def _background(given: Given, names: Sequence[str], mapping: Path) -> frozenset[str]:
    """The labels that are no action; those of the flag must be in the mapping."""
    if unknown := sorted(given.background - {*names}):
        raise DataError(
            f"{mapping}: has no label {unknown[0]!r} of --background; {known(unknown[0], names)}"
        )
    return given.background or frozenset(BACKGROUND)


def _frames(path: Path, names: Sequence[str], mapping: Path) -> list[str]:
    """The label of each frame, one a line."""
    rows = read_lines(path)
    frames = [label for _, label in rows]
    if not frames:
        raise DataError(f"{path}: no frame; one label per line is required")
    gap = next((n for n, (line, _) in enumerate(rows, start=1) if line != n), 0)
    if gap:
        raise DataError(
            f"{path}:{gap}: an empty line; each line is a frame: label it, or remove the line"
        )
    if unknown := next((label for label in frames if label not in names), None):
        raise DataError(f"{path}: label {unknown!r} is not in {mapping}")
    return frames


def _video(
    frames: Sequence[str], subset: str, fps: float, background: frozenset[str]
) -> dict[str, Any]:
    found, first = [], 0
    for label, run in groupby(frames):
        last = first + sum(1 for _ in run)
        if label not in background:
            found.append({"segment": [first / fps, last / fps], "label": label})
        first = last
    return {
        "subset": subset, "duration": len(frames) / fps, "fps": fps, "annotations": found,
    }  # fmt: skip


def _features(file: Path, given: Given) -> FeatureFile:
    return sliced(npy(file, transposed=not given.transpose), int(given.stride or 1))
