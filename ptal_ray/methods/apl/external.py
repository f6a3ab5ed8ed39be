"""External class scores of whole videos, as used in the leaderboards of ActivityNet."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.user_files import read_json
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.apl.detector_params import DetectorTrain

BEST = 2  # number of classes of a video that detections may have


def check(store: FeatureStore, hp: DetectorTrain) -> None:
    """Check before training that external scores may be used.

    Raises:
        ConfigError: classifiers trained with all labels would leak them into semi-supervised
            training.
        DataError: the file cannot be read or does not match the dataset.
    """
    if not hp.external_scores:
        return
    if hp.labelled_fraction < 1 and not hp.allow_external_scores:
        raise ConfigError(
            f"train.external_scores: {hp.external_scores}: scores of classifiers trained on all "
            f"labels leak them where only {hp.labelled_fraction:g} of the videos are labelled; "
            "leave them out, or set train.allow_external_scores=true, and every table will say so"
        )
    _check_scores(store, hp.external_scores)


@cache
def _check_scores(store: FeatureStore, path: str) -> None:
    """Check that a file of scores matches the dataset; the result is cached.

    Raises:
        DataError: the file cannot be read or does not match the dataset.
    """
    known = video_scores(path)
    every = [id for subset in ("train", "test") for id in store.ids(subset)]
    missing = [id for id in every if id not in known]
    if missing:
        raise DataError(
            f"{path}: no scores of {len(missing)} of {len(every)} videos, "
            f"{missing[0]} among them; add them"
        )
    for id in every:
        score = known[id]
        if score.shape != (store.info.num_classes,) or not ((score >= 0) & (score <= 1)).all():
            raise DataError(
                f"{path}: video {id}: needed are {store.info.num_classes} scores "
                "from 0 to 1 in one list, in the order of `python -m ptal_ray.data info`; of "
                "logits, take the softmax or sigmoid"
            )


@cache
def video_scores(path: str) -> dict[str, NDArray[np.float32]]:
    """The scores of each video of a JSON file {id: [score of each class, ...]}.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        content = read_json(Path(path))
        return {str(id): np.array(row, np.float32) for id, row in content.items()}
    except (DataError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no JSON object of video id -> list of class scores; write one ({error})"
        ) from error


def best(path: str, id: str) -> NDArray[np.float32]:
    """(C,) scores of a video, 0 except for the best classes."""
    score = video_scores(path)[id]
    kept = np.argsort(-score, kind="stable")[:BEST]
    made = np.zeros_like(score)
    made[kept] = score[kept]
    return made
