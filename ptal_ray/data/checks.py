"""What a video must satisfy to enter a store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ptal_ray.data.types import FloatArray, Points, Segments
from ptal_ray.errors import DataError

SUBSETS = ("train", "test")


LONGEST_ID = 200  # bytes; file systems allow 255 for a name, and a suffix is added


def id_problems(id: str) -> Iterator[str]:
    """What is wrong with a video id, which also names files."""
    if not id or id.startswith(".") or any(c in id for c in "/\\") or not id.isprintable():
        yield (
            f"video {id[:80]!r}: an id must not be empty, hold a path separator or an unprintable "
            "character, or start with a dot"
        )
    elif len(id.encode()) > LONGEST_ID:
        yield f"video {id[:80]!r}...: an id must not be longer than {LONGEST_ID} bytes"


def feature_problems(id: str, features: FloatArray, dim: int) -> Iterator[str]:
    """What is wrong with features, which must be (T, D) and finite; `dim` 0 allows any D."""
    wrong = list(array_problems(id, features, dim))
    yield from wrong
    if wrong or np.isfinite(features).all():
        return
    bad = np.argwhere(~np.isfinite(features))
    t, d = bad[0]
    yield (
        f"video {id}: features[{t}, {d}] is {features[t, d]}, the first of {len(bad)}; "
        "features must be finite: extract them again"
    )


def array_problems(id: str, features: FloatArray, dim: int) -> Iterator[str]:
    """What is wrong with shape and type of features, without a look at the values."""
    if features.ndim != 2 or 0 in features.shape:
        yield f"video {id}: features of shape {features.shape}; (T, D) with T, D >= 1 is needed"
        return
    if features.dtype.kind not in "fiu":
        yield f"video {id}: features of type {features.dtype}; numbers are needed"
        return
    yield from width_problems(id, features.shape, dim)


def width_problems(id: str, shape: tuple[int, ...], dim: int) -> Iterator[str]:
    """What is wrong with the D of a shape (T, D); `dim` 0 allows any."""
    if dim and shape[1] != dim:
        yield (
            f"video {id}: features of shape {shape}, but D = {dim} in the videos before; "
            "all need the same D"
        )


def instance_problems(id: str, instances: Segments, classes: int) -> Iterator[str]:
    """What is wrong with instances. One may reach beyond the video, as some published ones do."""
    wrong = ~((instances.start_s >= 0) & (instances.start_s < instances.end_s))
    wrong |= ~np.isfinite(instances.end_s)
    for row in np.flatnonzero(wrong):
        yield (
            f"video {id}: instance {row} is [{instances.start_s[row]:g}, "
            f"{instances.end_s[row]:g}] s; 0 <= start < end is needed"
        )
    yield from _label_problems(id, "instance", instances.label, classes)


def point_problems(id: str, points: Points, duration_s: float, classes: int) -> Iterator[str]:
    """What is wrong with points, which must lie in the video."""
    for row in np.flatnonzero(~((points.time_s >= 0) & (points.time_s <= duration_s))):
        yield (
            f"video {id}: point {row} at {points.time_s[row]:g} s; "
            f"it must lie in the video, [0, {duration_s:g}] s"
        )
    yield from _label_problems(id, "point", points.label, classes)


def duration_problems(id: str, duration_s: float, written: str = "") -> Iterator[str]:
    """What is wrong with a duration; `written` is how a file has it."""
    if not (np.isfinite(duration_s) and duration_s > 0):
        shown = written or f"{duration_s} s"
        yield f"video {id}: duration {shown}; a positive number of seconds is needed"


def check_labels(
    id: str,
    subset: str,
    duration_s: float,
    annotations: Segments,
    points: Points,
    *,
    classes: int,
) -> None:
    """Checks what a store keeps of a video beside its features.

    Raises:
        DataError: with the video, the value, what is allowed and the fix.
    """
    for problems in (
        () if subset in SUBSETS else (f"video {id}: subset {subset!r}; allowed: train, test",),
        duration_problems(id, duration_s),
        instance_problems(id, annotations, classes),
        point_problems(id, points, duration_s, classes),
    ):
        for problem in problems:
            raise DataError(problem)


def _label_problems(id: str, kind: str, label: np.ndarray, classes: int) -> Iterator[str]:
    for row in np.flatnonzero((label < 0) | (label >= classes)):
        yield f"video {id}: {kind} {row} has label {label[row]}; labels are 0..{classes - 1}"
