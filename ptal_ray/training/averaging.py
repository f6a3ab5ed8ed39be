"""Averages the scores of several models on the same videos, to decode them once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptal_ray.data.types import Scores


def averaged(members: Sequence[Sequence[Scores]]) -> list[Scores]:
    """The mean of the scores of each video.

    Args:
        members: scores of one or more models, for the same videos in the same order.

    Raises:
        ValueError: the average is not defined; the message has the reason.
    """
    return [_mean(videos) for videos in zip(*members, strict=True)]


def _mean(videos: Sequence[Scores]) -> Scores:
    first, arrays = videos[0], {}
    for name, own in first.arrays.items():
        others = [video.arrays.get(name) for video in videos]
        if any(o is None or o.shape != own.shape or o.dtype != own.dtype for o in others):
            raise ValueError(f"the scores {name} of two models differ in shape or type")
        stacked = np.stack([o for o in others if o is not None])
        if own.dtype.kind == "f":
            arrays[name] = stacked.mean(axis=0, dtype=np.float64).astype(own.dtype)
        elif (stacked == own).all():
            arrays[name] = own
        else:
            raise ValueError(f"the scores {name} are not numbers that can be averaged")
    if any(video.id != first.id or video.arrays.keys() != first.arrays.keys() for video in videos):
        raise ValueError("two models have scores of different videos, or different arrays")
    return Scores(id=first.id, arrays=arrays)
