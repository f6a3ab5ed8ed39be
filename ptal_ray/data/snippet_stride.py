"""Whether the stride of a dataset fits the settings that count snippets."""

from __future__ import annotations

import statistics
from typing import Protocol

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError

NEAR = 1.5  # a stride within this factor is the expected one: 4 frames at 25 or at 30 a second


class SnippetParams(Protocol):
    """The train parameters of a method whose settings count snippets."""

    @property
    def snippet_s(self) -> float:
        """Seconds between snippets that the settings are for; 0 for any."""

    @property
    def resample_to(self) -> int:
        """Snippets that every video is resampled to; 0 keeps its length."""


def check_snippets(store: FeatureStore, hp: SnippetParams) -> None:
    """Checks that the stride of a dataset fits; it always does if videos are resampled.

    Args:
        store: the dataset.
        hp: train parameters.

    Raises:
        DataError: the median stride of the training videos differs by more than a factor of 1.5.
    """
    ids = store.ids("train")
    if not hp.snippet_s or hp.resample_to or not ids:
        return
    own = statistics.median(store.grid(id).stride_s for id in ids)
    if max(own / hp.snippet_s, hp.snippet_s / own) > NEAR:
        raise DataError(
            f"{store.path}: its snippets are {own:.3g} s apart, and train.snippet_s says that "
            f"max_snippets, window and levels are for {hp.snippet_s:.3g} s; import features of "
            "that stride (the header of the search space has the command), or choose these three "
            f"for {own:.3g} s and set train.snippet_s=0"
        )
