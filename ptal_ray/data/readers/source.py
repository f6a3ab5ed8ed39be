"""The inputs of an import, from the flags and the reader of the layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptal_ray.data.exclusions import excluded_ids
from ptal_ray.data.importing.plan import Source
from ptal_ray.data.point_noise import given_noise
from ptal_ray.data.readers.layouts import LAYOUTS, read
from ptal_ray.data.readers.release import Given
from ptal_ray.data.user_files import nfc
from ptal_ray.errors import ConfigError

_NORMALIZED = ("signals",)  # layouts whose features are z-scores unless --normalize says none
_TAKEN = {  # flag -> the layouts that take it; the other flags are for all
    "split": {"mstcn"},
    "background": {"mstcn"},
    "task": {"epic"},
    "key": {*LAYOUTS} - {"plain", "mstcn"},
    "prefix": {*LAYOUTS} - {"plain", "mstcn"},
    "suffix": {*LAYOUTS} - {"plain"},
    "fps": {*LAYOUTS} - {"bmn"},
    "stride": {*LAYOUTS} - {"bmn"},
    "window": {*LAYOUTS} - {"bmn", "mstcn"},
}


def source(flags: argparse.Namespace) -> Source:
    """The inputs of an import.

    Raises:
        ConfigError: the points are missing, or a flag is missing or does not apply to the layout.
        DataError: the released folder is of another layout.
    """
    layout, root = (*flags.layout, None)[:2]
    for name, layouts in _TAKEN.items():
        if getattr(flags, name) and layout not in layouts:
            raise ConfigError(f"--{name} does not apply to --layout {layout}; remove it")
    release = read(layout, Given(
        root=Path(root) if root else None, features=flags.features,
        annotations=flags.annotations, points=flags.points, fps=flags.fps, stride=flags.stride,
        window=flags.window, key=flags.key, prefix=flags.prefix, suffix=flags.suffix,
        transpose=flags.transpose, split=flags.split or 1, task=flags.task or "verb",
        background=frozenset(nfc(n.strip()) for n in flags.background.split(",") if n.strip()),
    ))  # fmt: skip
    if release.points is None and not flags.simulate_points:
        raise ConfigError("pass --points CSV or --simulate-points KIND")
    lists = {"train": flags.train_list, "test": flags.test_list} if flags.train_list else None
    return Source(
        name=flags.name, features=release.folder, annotations=release.annotations,
        fps=release.fps, stride=release.stride, window=release.window,
        points=None if flags.simulate_points else release.points,
        point_fps=flags.point_fps or release.point_fps, simulated_points=flags.simulate_points,
        point_noise=given_noise(flags, bool(flags.simulate_points), "--simulate-points"),
        seed=flags.seed, lists=lists or release.lists, allow_length=flags.allow_length,
        allow_points=flags.allow_points, drop_invalid=flags.drop_invalid,
        transpose=flags.transpose, note=flags.note,
        content=release.content, files=release.files, point_columns=release.point_columns,
        exclude=excluded_ids(flags.exclude),
        drop_labels=frozenset(map(nfc, flags.drop_label)),
        group=flags.group or release.group, of_recordings=release.of_recordings,
        channels=release.channels,
        transposed=flags.transpose if release.transposed is None else release.transposed,
        every=release.every,
        normalize=(flags.normalize or _default(layout)) == "train",
    )  # fmt: skip


def _default(layout: str) -> str:
    return "train" if layout in _NORMALIZED else "none"
