"""One pass over all features of a data set: errors, warnings, and the dtype they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ptal_ray.data.checks import array_problems, feature_problems
from ptal_ray.data.choices import AUTO, DTYPES
from ptal_ray.data.features.precision import LOSS, Channels, VideoSums, channel_sums, named
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What one reading of the features of a video found.

    Args:
        id: of the video.
        problems: what makes the features useless.
        remark: what is odd; "" for nothing.
        sums: for `Channels`; None where there are problems.
    """

    id: str
    problems: tuple[str, ...] = ()
    remark: str = ""
    sums: VideoSums | None = None


def surveyed(id: str, features: FloatArray) -> Surveyed:
    """What is wrong with and odd about the features of a video, and their sums."""
    usable = not any(array_problems(id, features, 0))
    sums = channel_sums(features, DTYPES[1:]) if usable else None
    if sums is None or not np.isfinite(sums.squares).all():  # so are those of finite features
        wrong = feature_problems(id, features, 0)
        problems = tuple(Problem(text, "features that are not finite") for text in wrong)
        if problems:
            return Surveyed(id=id, problems=problems)
    return Surveyed(id=id, remark=_remark(features), sums=sums)


def survey(videos: Iterable[Surveyed], dtype: str, problems: list[str], remarks: Remarks) -> str:
    """What all videos together show.

    Args:
        videos: what was found in each, of one D.
        dtype: of the store to be; "auto" takes float16 where it loses nothing that matters.
        problems: takes in what makes the features useless.
        remarks: takes in what is odd.

    Returns:
        "float16" or "float32".
    """
    channels = Channels(*DTYPES[1:])
    for video in videos:
        problems += video.problems
        if video.remark:
            remarks.note(video.remark, video.id)
        if video.sums is not None:
            channels.take(video.sums)
    if not channels.count:
        return "float32"
    _check_channels(channels, problems, remarks)
    return _chosen(channels, dtype, problems, remarks)


def _remark(features: FloatArray) -> str:
    if np.array_equal(features[0], features[-1]) and (features == features[0]).all():
        if not features[0].any():
            return "videos whose features are all 0"
        if len(features) > 1:
            return "videos whose snippets are all equal"
    return ""


def _check_channels(channels: Channels, problems: list[str], remarks: Remarks) -> None:
    constant, zero = channels.constant, channels.zero
    if len(constant) == channels.count:
        problems.append(
            Problem(
                f"features: each of the {channels.count} channels is constant over all videos; "
                "nothing can be learned from them; extract them again",
                "features that are constant",
            )
        )
    elif len(constant):
        of = f"of {channels.count}"
        if len(zero):
            remarks.note("channels that are 0 in all videos", f"{of}: {named(zero)}", len(zero))
        if len(other := np.setdiff1d(constant, zero)):
            kind = "channels that are constant over all videos"
            remarks.note(kind, f"{of}: {named(other)}", len(other))


def _chosen(channels: Channels, dtype: str, problems: list[str], remarks: Remarks) -> str:
    half, single = channels.loss("float16"), channels.loss("float32")
    if single:
        problems.append(
            Problem(
                f"features: {single}; pass --normalize train, or subtract the mean of these "
                "channels and divide by their standard deviation before the import",
                "features that a store cannot hold",
            )
        )
    elif half and dtype == "float16":
        problems.append(
            Problem(
                f"features: {half}; remove --dtype or pass --dtype float32",
                "features that a store cannot hold",
            )
        )
    elif half and dtype == AUTO:
        spoiled = int((channels.lost("float16") > LOSS).sum())
        remarks.note(
            "channels for which float16 is too imprecise; stored as float32", half, spoiled
        )
    return "float32" if dtype == "float32" or half else "float16"
