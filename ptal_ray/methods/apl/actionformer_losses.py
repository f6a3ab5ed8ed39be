"""Losses of ActionFormer, and of its quality-aware form in APL."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.apl.actionformer_network import (
    ActionFormer,
    Output,
    class_scores,
    joint_quality,
)
from ptal_ray.methods.apl.actionformer_params import ActionFormerTrain
from ptal_ray.methods.apl.actionformer_targets import Targets, targets
from ptal_ray.methods.apl.detector import Unlabelled
from ptal_ray.methods.apl.instances import instances
from ptal_ray.methods.method import Batch, Pseudo, Step
from ptal_ray.ops import mil
from ptal_ray.ops.pyramid import drop_path

ALPHA, GAMMA = 0.25, 2  # of the focal loss
MOMENTUM = 0.9  # of the running number of positives
SMALL = 1e-8
CLAMP = 1e-6  # distance of scores from 0 and 1 in logarithms


def loss(model: ActionFormer, batch: Batch, hp: ActionFormerTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "class", "edges" and, with quality heads, "quality".

    Source: ActionFormer code; golden actionformer/tiny_model.
    """
    output = run(model, batch, step)
    with torch.autocast(batch.mask.device.type, enabled=False):
        return terms(model, output, batch, instances(batch), hp, step)


def run(model: ActionFormer, batch: Batch, step: Step) -> Output:
    """The outputs of a training batch, with drop-path."""
    output: Output = model(*_inputs(model, batch, step))
    return output


def represent(model: ActionFormer, batch: Batch, step: Step) -> list[Tensor]:
    """The levels of the pyramid for a training batch."""
    levels, _ = model.represent(*_inputs(model, batch, step))
    return levels


def _inputs(model: ActionFormer, batch: Batch, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    features, mask = model.padded(batch.features, batch.mask)
    return features, mask, drop_path(step.rand(len(mask), model.pyramid.branches), model.drop_path)


def terms(
    model: ActionFormer,
    output: Output,
    batch: Batch,
    own: Pseudo,
    hp: ActionFormerTrain,
    step: Step,
    unlabelled: Unlabelled | None = None,
) -> dict[str, Tensor]:
    """The terms of `detection_losses` from the instances of the crops."""
    classes = output.logit.shape[2]
    taught = targets(own, output.sizes, classes, hp.first_range, hp.center_radius)
    return detection_losses(model, output, taught, hp, step, unlabelled)


def detection_losses(
    model: ActionFormer,
    output: Output,
    taught: Targets,
    hp: ActionFormerTrain,
    step: Step,
    unlabelled: Unlabelled | None = None,
) -> dict[str, Tensor]:
    """The 0-d terms: sums over positions divided by the running average of positives.

    Args:
        model: has this average; it is updated.
        output, taught: for the same positions.
        hp: train parameters.
        step: of the trial.
        unlabelled: videos with pseudo-labels, which have a separate running average.
    """
    positive = taught.positive & output.mask
    weight = _video_weights(model, positive.sum(dim=1), step, unlabelled)
    edges, target = output.edges, taught.edges
    tiou, tnd = edge_quality(edges.detach(), target)
    label = smoothed(taught.label, hp.label_smoothing)
    rated = true_quality(tiou, tnd, hp.alqa)  # no effect without a head
    if output.quality is None:
        focal = sigmoid_focal(output.logit, label)
    else:
        quality = joint_quality(rated, hp.quality_floor)
        label = label * torch.where(positive, quality, 0.0)[..., None]
        focal = soft_focal(class_scores(output, hp.quality_floor), label, hp.focal)
    counted = output.mask & ~taught.ignored
    regressed = regression_loss(edges, target)
    terms = {
        "class": _weighted(focal.sum(dim=2), counted, weight),
        "edges": hp.regression_weight * _weighted(regressed, positive, weight),
    }
    if output.quality is not None:
        wrong = quality_error(output.quality, rated, positive, hp.quality_loss)
        terms["quality"] = hp.quality_weight * _weighted(wrong, positive, weight)
    return terms


def _weighted(value: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
    """Sum of the (B, N) `value` over `chosen`, each video times its (B,) weight."""
    total: Tensor = (torch.where(chosen, value, 0.0).sum(dim=1) * weight).sum()
    return total


def _video_weights(
    model: ActionFormer, number: Tensor, step: Step, unlabelled: Unlabelled | None
) -> Tensor:
    """(B,) weight of each video, from the running average of positives of its kind.

    Args:
        number: (B,) number of positives of each video.
    """
    kind = torch.zeros_like(number) if unlabelled is None else unlabelled.videos.long()
    count = torch.zeros_like(model.positives).index_add(0, kind, number.to(model.positives))
    count = step.mean_over_workers(count) * step.world_size
    running = MOMENTUM * model.positives + (1 - MOMENTUM) * count.clamp(min=1)
    if model.training:  # a kind without videos in this stage keeps its average
        kinds = 1 if unlabelled is None else 2
        model.positives[:kinds] = running[:kinds]
    factor = torch.where(kind == 1, 0.0 if unlabelled is None else unlabelled.weight, 1.0)
    weights: Tensor = factor * step.world_size / running[kind]
    return weights


def smoothed(label: Tensor, share: float) -> Tensor:
    """(..., C) targets with a fraction `share` distributed over all classes and one more."""
    if not share:
        return label
    return label * (1 - share) + share / (label.shape[-1] + 1)


def sigmoid_focal(
    logit: Tensor, label: Tensor, alpha: float = ALPHA, gamma: float = GAMMA
) -> Tensor:
    """Focal loss of each entry; with a negative alpha, positives and negatives have equal weights.

    Source: Lin et al., 2017; golden actionformer/losses.
    """
    cross = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
    score = torch.sigmoid(logit)
    return _focal(score, label, cross, alpha, gamma)


def _focal(score: Tensor, label: Tensor, cross: Tensor, alpha: float, gamma: float) -> Tensor:
    right = score * label + (1 - score) * (1 - label)
    value = cross * (1 - right) ** gamma
    return value if alpha < 0 else value * (alpha * label + (1 - alpha) * (1 - label))


def soft_focal(score: Tensor, label: Tensor, variant: str) -> Tensor:
    """Focal loss of each score with its soft label.

    Args:
        score: in [0, 1].
        label: in [0, 1].
        variant: "sigmoid", the focal loss with soft labels, or "quality", |y - p|^2 BCE.

    Source: APL Eq. 5; Li et al., 2020 (quality).
    """
    score = score.clamp(min=CLAMP, max=1 - CLAMP)
    cross = mil.cross_entropy(score, label)
    if variant == "quality":
        return (label - score).square() * cross
    return _focal(score, label, cross, ALPHA, GAMMA)


def edge_quality(edges: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(...) tIoU, and tND: the squared distance of the centres divided by the enclosing length.

    Args:
        edges, target: (..., 2) distances to start and end from one position.

    Source: APL Eq. 1 and 2.
    """
    # if both are equal, minimum and maximum have no gradient, as in the golden values
    shared = torch.where(edges < target, edges, target).sum(dim=-1)
    union = (edges + target).sum(dim=-1) - shared
    enclosing = torch.where(edges > target, edges, target).sum(dim=-1)
    apart = ((edges[..., 1] - edges[..., 0]) - (target[..., 1] - target[..., 0])) / 2
    tiou = shared / union.clamp(min=SMALL)
    tnd = (apart / enclosing.clamp(min=SMALL)).square()
    return tiou.clamp(0, 1), tnd.clamp(0, 1)


def true_quality(tiou: Tensor, tnd: Tensor, alqa: str) -> Tensor:
    """(..., K) targets of the heads of `alqa`: tIoU, tIoU - tND (at least 0), or tIoU and tND."""
    if alqa == "both":
        return torch.stack([tiou, tnd], dim=-1)
    return (tiou if alqa == "tiou" else (tiou - tnd).clamp(min=0))[..., None]


def quality_error(found: Tensor, truth: Tensor, positive: Tensor, kind: str) -> Tensor:
    """(B, N) error of the heads at each position; undefined at positions that are not positive.

    Args:
        found, truth: (B, N, K) in [0, 1].
        positive: (B, N) bool.
        kind: "bce", or "kl": for each video and head, the divergence of both, normalised over the
            positives, times the number of positives.

    Source: APL Eq. 3; Table S1 (KL divergence; the distributions are PROPOSED).
    """
    if kind == "bce":
        return mil.cross_entropy(found, truth).sum(dim=2)
    share, own = (_distribution(value, positive) for value in (truth, found))
    number = positive.sum(dim=1)[:, None, None]
    return (number * share * (share.clamp(min=CLAMP).log() - own.clamp(min=CLAMP).log())).sum(dim=2)


def _distribution(value: Tensor, positive: Tensor) -> Tensor:
    """(B, N, K) values divided by their sum over the positives of the video."""
    kept = torch.where(positive[..., None], value, 0.0)
    shares: Tensor = kept / kept.sum(dim=1, keepdim=True).clamp(min=SMALL)
    return shares


def regression_loss(edges: Tensor, target: Tensor) -> Tensor:
    """(...) DIoU loss, 1 - tIoU + tND.

    Source: Zheng et al., 2020; golden actionformer/losses.
    """
    tiou, tnd = edge_quality(edges, target)
    return 1 - tiou + tnd


def giou_loss(edges: Tensor, target: Tensor) -> Tensor:
    """(...) GIoU loss; in one dimension around a common position it is 1 - tIoU.

    Source: golden actionformer/losses.
    """
    return 1 - edge_quality(edges, target)[0]
