"""Whether the snippets of a dataset are as long as settings that count snippets expect."""

from __future__ import annotations

import statistics
from typing import Any

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError

NEAR = 1.5  # a stride within this factor is the expected one: 4 frames at 25 or at 30 a second


def check_snippets(store: FeatureStore, hp: Any) -> None:
    """Says whether the stride of a dataset fits; resampled videos fit whatever it is.

    Args:
        store: the dataset.
        hp: train parameters, with `snippet_s` and `resample_to`.

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
