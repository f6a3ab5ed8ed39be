"""One reading of all features of a data set: what is wrong with them, and the type they need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ptal_ray.data.checks import feature_problems
from ptal_ray.data.choices import AUTO, DTYPES
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.precision import LOSS, Channels, named
from ptal_ray.data.types import FloatArray


def survey(
    videos: Iterable[tuple[str, FloatArray]], dtype: str, problems: list[str], remarks: Remarks
) -> str:
    """Reads features once, a video in memory at a time.

    Args:
        videos: ids and features, of one D.
        dtype: of the store to be; "auto" takes float16 where it loses nothing that matters.
        problems: takes in what makes the features useless.
        remarks: takes in what is odd.

    Returns:
        "float16" or "float32".
    """
    channels = Channels(*DTYPES[1:])
    for id, features in videos:
        wrong = list(feature_problems(id, features, 0))
        problems += [Problem(text, "features that are not finite") for text in wrong]
        if not wrong:
            _remark_video(id, features, remarks)
            channels.add(features)
    if not channels.count:
        return "float32"
    _check_channels(channels, problems, remarks)
    return _chosen(channels, dtype, problems, remarks)


def _remark_video(id: str, features: FloatArray, remarks: Remarks) -> None:
    if np.array_equal(features[0], features[-1]) and (features == features[0]).all():
        if not features[0].any():
            remarks.note("videos whose features are all 0", id)
        elif len(features) > 1:
            remarks.note("videos whose snippets are all alike", id)


def _check_channels(channels: Channels, problems: list[str], remarks: Remarks) -> None:
    constant, zero = channels.constant, channels.zero
    if len(constant) == channels.count:
        problems.append(
            Problem(
                f"features: each of the {channels.count} channels has one value in all videos; "
                "nothing can be learned from them: extract them again",
                "features that hold nothing",
            )
        )
    elif len(constant):
        of = f"of {channels.count}"
        if len(zero):
            remarks.note("channels that are 0 in all videos", f"{of}: {named(zero)}", len(zero))
        if len(other := np.setdiff1d(constant, zero)):
            kind = "channels that have one value in all videos"
            remarks.note(kind, f"{of}: {named(other)}", len(other))


def _chosen(channels: Channels, dtype: str, problems: list[str], remarks: Remarks) -> str:
    half, single = channels.loss("float16"), channels.loss("float32")
    if single:
        problems.append(
            Problem(
                f"features: {single}; subtract the mean of these channels and divide by their "
                "deviation before the import",
                "features that a store cannot hold",
            )
        )
    elif half and dtype == "float16":
        problems.append(
            Problem(
                f"features: {half}; leave --dtype out or pass --dtype float32",
                "features that a store cannot hold",
            )
        )
    elif half and dtype == AUTO:
        spoiled = int((channels.lost("float16") > LOSS).sum())
        remarks.note("channels that float16 would lose, stored as float32", half, spoiled)
    return "float32" if dtype == "float32" or half else "float16"
