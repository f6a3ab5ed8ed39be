"""The features of a video on their way into a store: checked, and in its type."""

from __future__ import annotations

from dataclasses import dataclass

from ptal_ray.data.checks import feature_problems, id_problems
from ptal_ray.data.precision import VideoSums, channel_sums, rounded
from ptal_ray.data.types import FloatArray
from ptal_ray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Features (T, D) as a store keeps them, and the sums of those that were given; None where
    nobody measures what is lost."""

    id: str
    features: FloatArray
    sums: VideoSums | None


def prepared(id: str, features: FloatArray, dtype: str, *, measured: bool) -> Prepared:
    """The features of a video for a store of type `dtype`; depends on nothing else.

    Args:
        id: of the video.
        features: (T, D), finite.
        dtype: "float16" or "float32".
        measured: whether it is known what the type loses.

    Raises:
        DataError: the id or the features cannot be stored.
    """
    for problem in (*id_problems(id), *feature_problems(id, features, 0)):
        raise DataError(problem)
    sums = None if measured else channel_sums(features, (dtype,))
    return Prepared(id=id, features=rounded(id, features, dtype), sums=sums)
