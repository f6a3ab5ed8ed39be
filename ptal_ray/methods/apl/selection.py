"""Selects the predictions on unlabelled videos that become pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ptal_ray.data.types import Segments
from ptal_ray.methods.apl.apl_params import AplStages
from ptal_ray.methods.apl.icd import Discriminator, instance_vectors, likeness
from ptal_ray.methods.method import Known

HIGHEST_SHARE = 0.9  # tau_pos is at most this quantile of the scores


def select(
    known: Known, predictions: dict[str, Segments], hp: AplStages
) -> tuple[dict[str, Segments], dict[str, Segments]]:
    """Select predictions by score, then by similarity to the annotated instances of their class.

    Args:
        known: with the discriminator in the weights of the stage.
        predictions: for each unlabelled video, with joint scores.
        hp: train parameters of APL.

    Returns:
        By id, the selected instances and the other candidates. Predictions selected by score and
        dropped by similarity are in neither.

    Source: APL sections 3.2 and 3.3.
    """
    strong = {id: p.take(p.score > hp.tau_neg) for id, p in predictions.items()}
    limit = thresholds(list(strong.values()), hp)
    high = [p.score >= own for p, own in zip(strong.values(), limit, strict=True)]
    chosen = high
    if hp.eliminate or hp.mine:
        alike = _likeness(known, strong, hp)
        chosen = [revised(own, like, hp) for own, like in zip(high, alike, strict=True)]
    rows = list(zip(strong.items(), high, chosen, strict=True))
    return (
        {id: p.take(own) for (id, p), _, own in rows},
        {id: p.take(~own & ~above) for (id, p), above, own in rows},
    )


def thresholds(predictions: Sequence[Segments], hp: AplStages) -> list[NDArray[np.float64]]:
    """tau_pos of each prediction: mean + k standard deviations of the scores, at most their 0.9
    quantile.

    The scores are those of all predictions, or of their class or video (`tau_pos_scope`).
    """
    score = np.concatenate([np.zeros(0), *(p.score for p in predictions)])
    if not hp.adaptive:
        return [np.zeros(len(p)) for p in predictions]
    group = {
        "all": np.zeros(len(score), np.int64),
        "class": np.concatenate([np.zeros(0, np.int64), *(p.label for p in predictions)]),
        "video": np.repeat(np.arange(len(predictions)), [len(p) for p in predictions]),
    }[hp.tau_pos_scope]
    limit = np.zeros(len(score))
    for g in np.unique(group):
        own = score[group == g]
        most = np.quantile(own, HIGHEST_SHARE)
        limit[group == g] = min(own.mean() + hp.tau_pos_k * own.std(), most)
    return np.split(limit, np.cumsum([len(p) for p in predictions]))[:-1]


def revised(
    positive: NDArray[np.bool_], alike: NDArray[np.float64], hp: AplStages
) -> NDArray[np.bool_]:
    """Positives without those dissimilar to their class, plus the candidates similar to it.

    Args:
        positive: (P,) by score.
        alike: (P,) similarity, NaN for a class without annotations: such predictions are unchanged.
    """
    kept = positive & ~(hp.eliminate & (alike < hp.tau_icd))
    mined: NDArray[np.bool_] = kept | (hp.mine & ~positive & (alike >= hp.promote_icd))
    return mined


def discriminator(known: Known, hp: AplStages) -> Discriminator:
    """The discriminator trained in the earlier stage."""
    assert known.stage is not None
    weights = {
        name.removeprefix("icd."): value
        for name, value in known.stage.weights.items()
        if name.startswith("icd.")
    }
    model = Discriminator(known.split.store.info.feature_dim, hp.icd_hidden)
    model.load_state_dict(weights)
    return model


def _likeness(
    known: Known, predictions: dict[str, Segments], hp: AplStages
) -> list[NDArray[np.float64]]:
    """Similarity of each video's predictions to the annotated instances of their classes; NaN with
    one class, from which the discriminator learns nothing."""
    split, truth = known.split, known.truth()
    rows = {id: row for row, id in enumerate(split.ids)}
    own = [instance_vectors(split, rows[id], truth[id]) for id in known.labelled]
    classes = np.concatenate([truth[id].label for id in known.labelled])
    if len(np.unique(classes)) < 2:
        return [np.full(len(found), np.nan) for found in predictions.values()]
    model = discriminator(known, hp)
    with torch.no_grad():
        other = model.other_side(torch.cat(own))
    return [
        likeness(model, instance_vectors(split, rows[id], p), p.label, other, classes)
        for id, p in predictions.items()
    ]
