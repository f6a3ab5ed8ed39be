"""BMN's losses, the terms that APL adds, and those of the small video classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ptal_ray.methods.apl.bmn_labels import LOW, POSITIVE, Targets, targets
from ptal_ray.methods.apl.bmn_network import CLASSIFICATION, REGRESSION, TND, BmnOutput
from ptal_ray.methods.apl.bmn_params import BmnTrain
from ptal_ray.methods.apl.detector import Unlabelled
from ptal_ray.methods.method import Step
from ptal_ray.ops import mil

GOOD, HIGH = 0.9, 0.7  # tIoU
LOG_SHIFT = 1e-6  # inside logarithms
TINY = 1e-12  # makes the mean over an empty set 0


def losses(
    made: BmnOutput,
    segments: Mapping[str, Tensor],
    mask: Tensor,
    hp: BmnTrain,
    draw: Tensor,
    step: Step,
    unlabelled: Unlabelled | None = None,
) -> dict[str, Tensor]:
    """Weighted 0-d terms "boundary", "regression", "classification", "video" and, with tnd, "tnd".

    A term without positives in the batch is 0; in the released code it is NaN.

    Args:
        made: of videos or crops.
        segments: see `bmn_labels.targets`.
        mask: (B, T) bool.
        hp: BmnTrain.
        draw: (B, 2, K) uniform in [0, 1), to choose cells of middle and of low tIoU for the
            regression.
        step: for its `mean_over_workers`.
        unlabelled: videos whose terms are separate means; None for none.

    Source: BMN code; golden bmn losses.
    """
    with torch.autocast(mask.device.type, enabled=False):
        given = targets(segments, mask, hp.longest, made.video.shape[1])
        if unlabelled is None:
            return _weighted(made, given, mask, mask.new_ones(len(mask)), hp, draw, step)
        known, guessed = (
            _weighted(made, given, mask & rows[:, None], rows, hp, draw, step)
            for rows in (~unlabelled.videos, unlabelled.videos)
        )
        return {name: term + unlabelled.weight * guessed[name] for name, term in known.items()}


def _weighted(
    made: BmnOutput,
    given: Targets,
    mask: Tensor,
    rows: Tensor,
    hp: BmnTrain,
    draw: Tensor,
    step: Step,
) -> dict[str, Tensor]:
    """As `losses`, over `rows` (B,) bool; `mask` excludes the other rows too."""
    truth, sets = given.maps, _sets(given, mask, made.inside(mask), hp)
    counts = [v.sum(dtype=torch.float32) for v in (*sets.values(), rows)]
    number = dict(zip((*sets, "rows"), step.mean_over_workers(torch.stack(counts)), strict=True))

    def mean(value: Tensor, name: str) -> Tensor:
        """The mean of a loss over a set of cells of the whole batch."""
        made: Tensor = (value * sets[name]).sum() / number[name].clamp(min=TINY)
        return made

    def balanced(score: Tensor, name: str) -> Tensor:
        """Half the mean over positives plus half that over negatives; 0 without positives."""
        right = mean(torch.log(score + LOG_SHIFT), f"{name} positive")
        wrong = mean(torch.log(1 - score + LOG_SHIFT), f"{name} negative")
        made: Tensor = -0.5 * (right + wrong) * (number[f"{name} positive"] > 0)
        return made

    regressed, classified = made.maps[:, REGRESSION], made.maps[:, CLASSIFICATION]
    chosen = _chosen(sets, number, draw)
    total = step.mean_over_workers(chosen.sum(dtype=torch.float32)).clamp(min=TINY)
    error = 0.5 * ((regressed - truth.iou).square() * chosen).sum() / total
    classes = mil.cross_entropy(made.video, given.present.float())
    classes = classes.masked_fill(given.open_class, 0.0).mean(dim=1)
    terms = {
        "boundary": hp.boundary_weight
        * (balanced(made.start, "start") + balanced(made.end, "end")),
        "regression": hp.regression_weight * error,
        "classification": hp.classification_weight * balanced(classified, "cell"),
        "video": hp.video_weight * (classes * rows).sum() / number["rows"].clamp(min=TINY),
    }
    if hp.tnd:
        wrong = mil.cross_entropy(made.maps[:, TND], truth.tnd)
        terms["tnd"] = hp.tnd_weight * mean(wrong, "near")
    return terms


def _sets(given: Targets, mask: Tensor, cell: Tensor, hp: BmnTrain) -> dict[str, Tensor]:
    """The snippets (B, T) and cells (B, K) of each mean, or their weights."""
    truth, cell = given.maps, cell & ~given.open_cell
    start, end, iou = truth.start > POSITIVE, truth.end > POSITIVE, truth.iou
    right = (iou > GOOD) & cell
    if hp.joint:  # PROPOSED: as in ActionFormer, 0 without an instance
        soft = (iou - truth.tnd).clamp(min=hp.eps)
        right = torch.where((iou > 0) & cell, soft, 0.0)
    return {
        "start positive": start & mask,
        "start negative": ~start & mask & ~given.open_start,
        "end positive": end & mask,
        "end negative": ~end & mask & ~given.open_end,
        "cell positive": right,
        "cell negative": (iou <= GOOD) & cell,
        "high": (iou > HIGH) & cell,
        "middle": (iou > LOW) & (iou <= HIGH) & cell,
        "low": (iou > 0) & (iou <= LOW) & cell,
        "near": (iou > LOW) & cell,
    }


def _chosen(sets: Mapping[str, Tensor], number: Mapping[str, Tensor], draw: Tensor) -> Tensor:
    """(B, K) bool: all cells of high tIoU, and about as many of middle and of low."""
    # Deviation: if there are fewer of these, exactly they are chosen; the released code then takes
    # every cell of the map, including cells that are no segment.
    chosen = sets["high"]
    for name, own in zip(("middle", "low"), draw.unbind(dim=1), strict=True):
        share = number["high"] / number[name].clamp(min=TINY)
        chosen = chosen | (sets[name] & (own > 1 - share))
    return chosen
