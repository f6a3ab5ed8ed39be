"""The features of a video, checked and converted to the dtype of a store."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.data.checks import feature_problems, id_problems
from ptal_ray.data.features.half import rounded_to
from ptal_ray.data.features.precision import VideoSums, channel_sums, rounded
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Features (T, D) in the dtype of a store, and sums of the original ones; None if the rounding
    error is not measured."""

    id: str
    features: FloatArray
    sums: VideoSums | None


def prepared(id: str, features: FloatArray, dtype: str, *, measured: bool) -> Prepared:
    """The features of a video in `dtype`; depends only on the arguments.

    Args:
        id: of the video.
        features: (T, D), finite.
        dtype: "float16" or "float32".
        measured: whether the rounding error is already known.

    Raises:
        DataError: the id or the features cannot be stored.
    """
    for problem in (*id_problems(id), *feature_problems(id, features, 0)):
        raise DataError(problem)
    sums = None if measured else channel_sums(features, (dtype,))
    return Prepared(id=id, features=rounded(id, features, dtype), sums=sums)


def checked(id: str, features: FloatArray, dtype: str) -> Prepared:
    """As `prepared`, for features that a survey has read: finite, and in the range of `dtype`.

    Raises:
        DataError: the id cannot be stored.
    """
    for problem in id_problems(id):
        raise DataError(problem)
    return Prepared(id=id, features=rounded_to(features, dtype), sums=None)
