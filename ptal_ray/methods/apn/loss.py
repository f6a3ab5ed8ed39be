"""The loss of APN on a batch: boundaries, proposals and contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.methods.apn.boundary import boundary_targets, weighted_binary_loss
from ptal_ray.methods.apn.contrast import contrast_loss
from ptal_ray.methods.apn.model import Apn
from ptal_ray.methods.apn.params import ApnTrain
from ptal_ray.methods.apn.proposals import Candidates, pair_candidates
from ptal_ray.methods.method import Batch, Step

NEGATIVES = 2  # other proposals for each one with tIoU >= 0.5
NARROWEST_ZONE_T = 2.0  # snippets; see _boundary_loss


def loss(model: Apn, batch: Batch, hp: ApnTrain, step: Step) -> dict[str, Tensor]:
    """Weighted terms "boundary", "class", "text" and "contrast".

    The contrast is a sum over the instances and classes of a video, as printed, and a mean over
    the videos of the batch.

    Source: APN Eq. 4 with BSN's objective for the boundary detector.
    """
    assert batch.pseudo is not None
    labels = _in_crop(batch)
    x = model.embed(batch.features, batch.mask)
    probability = model.boundaries(x, batch.mask)
    terms = {"boundary": _boundary_loss(probability, labels, batch.mask, hp, step)}
    if hp.contrast_weight:
        summed, _ = contrast_loss(
            x, batch.mask, labels["start_t"], labels["end_t"],
            batch.point_label * labels["valid"][..., None],
            labels["background_start_t"], labels["background_end_t"],
            tau=hp.contrast_temperature, context_ratio=hp.region_ratio,
        )  # fmt: skip
        videos = summed.new_tensor(float(len(batch.mask)))
        terms["contrast"] = hp.contrast_weight * summed / step.mean_over_workers(videos)
    _remember_longest(model, hp, step)
    if step.epoch >= hp.pem_start_epochs:
        terms |= _proposal_loss(model, x, probability.detach(), batch, labels, hp, step)
    return terms


def _in_crop(batch: Batch) -> dict[str, Tensor]:
    """The pseudo-labels of whole videos, moved and clipped into the crops."""
    assert batch.pseudo is not None
    last = batch.mask.sum(dim=1)[:, None] - 1
    moved = {}
    for kind in ("", "background_"):
        first = batch.pseudo[f"{kind}start_t"] - batch.crop_t[:, None]
        final = batch.pseudo[f"{kind}end_t"] - batch.crop_t[:, None]
        valid = batch.pseudo[f"{kind}valid"] & (final >= 0) & (first <= last)
        if not kind:
            valid &= batch.point_t >= 0  # the point of the instance is in the crop
        zero = torch.zeros_like(last)
        missing = -1 if kind else 0
        moved[f"{kind}start_t"] = torch.where(
            valid, torch.minimum(first.clamp(min=0), last), missing
        )
        moved[f"{kind}end_t"] = torch.where(
            valid, torch.maximum(torch.minimum(final, last), zero), missing
        )
        moved[f"{kind}valid"] = valid
    return moved


def _boundary_loss(
    probability: Tensor, labels: dict[str, Tensor], mask: Tensor, hp: ApnTrain, step: Step
) -> Tensor:
    """BSN's objective on pseudo-labels.

    Deviation: a zone is at least two snippets wide. Edges of pseudo-labels lie between snippets,
    where a zone of one snippet covers half of each of the two adjacent cells, so no cell would be
    positive.
    """
    targets = boundary_targets(
        labels["start_t"].float(), labels["end_t"].float() + 1, labels["valid"],
        mask.shape[1], hp.zone_ratio, NARROWEST_ZONE_T,
    )  # fmt: skip
    weights = (1.0, 1.0, 2.0)
    total = probability.new_zeros(())
    for channel in range(probability.shape[1]):
        term = weighted_binary_loss(
            probability[:, channel], targets[channel], mask, step.mean_over_workers
        )
        total = total + weights[channel] * term
    return total


def _remember_longest(model: Apn, hp: ApnTrain, step: Step) -> None:
    """Store d_max: a quantile of the lengths of all current pseudo-labels of the training split."""
    if hp.resample_to or step.split_pseudo is None:
        return  # no limit: every duration of a resampled video is allowed
    labels = step.split_pseudo
    lengths = (labels["end_t"] - labels["start_t"]).float() + 1
    lengths = lengths.masked_fill(~labels["valid"], torch.nan)
    longest = torch.nanquantile(lengths.flatten(), hp.duration_quantile)
    model.longest_t.copy_(torch.where(longest.isnan(), torch.inf, longest))


def _proposal_loss(
    model: Apn,
    x: Tensor,
    probability: Tensor,
    batch: Batch,
    labels: dict[str, Tensor],
    hp: ApnTrain,
    step: Step,
) -> dict[str, Tensor]:
    """Losses of classes and text confidence of sampled proposals.

    Source: APN, Eq. 3; the whole cross-entropy where the paper prints the terms of positives.
    """
    found = pair_candidates(
        probability[:, 0], probability[:, 1], batch.mask, min_duration_t=hp.min_duration_t,
        max_duration_t=model.longest_t, top=hp.train_candidates,
    )  # fmt: skip
    start, end, point, usable, empty = _with_instances(
        found, batch, labels, hp.background_proposals
    )
    # The classes and the instance of the single point in a proposal.
    own_start = labels["start_t"].gather(1, point).float()
    own_end = labels["end_t"].gather(1, point).float() + 1
    shared = (torch.minimum(end, own_end) - torch.maximum(start, own_start)).clamp(min=0)
    overlap = shared / ((end - start) + (own_end - own_start) - shared).clamp(min=1e-6)
    overlap = overlap.masked_fill(empty, 0)
    rows, kept = _balance(overlap, usable, hp.proposals_per_video, step)
    start, end, point, overlap, empty = (
        v.gather(1, rows) for v in (start, end, point, overlap, empty)
    )
    index = point[..., None].expand(-1, -1, batch.point_label.shape[2])
    classes = batch.point_label.gather(1, index) * ~empty[..., None]
    complete = (overlap >= 0.5).float()
    target = overlap if hp.confidence_target == "tiou" else complete
    of_class = classes * complete[..., None] if hp.class_target == "complete" else classes
    class_logit, text_logit = model.evaluate(x, start, end, _dropout(model, rows, hp, step))
    number = _or_one(step.mean_over_workers(kept.sum().float()))

    def cross_entropy(logit: Tensor, wanted: Tensor) -> Tensor:
        """The mean over proposals of the sum over classes, times lambda_1."""
        terms = F.binary_cross_entropy_with_logits(logit, wanted, reduction="none")
        total: Tensor = hp.pem_weight * (terms.sum(dim=2) * kept).sum() / number
        return total

    terms = {"class": cross_entropy(class_logit, of_class)}
    if hp.text_weight:
        text = cross_entropy(text_logit, classes * target[..., None])
        terms["text"] = hp.text_weight * text
    return terms


def _or_one(number: Tensor) -> Tensor:
    """A count as divisor, at least 1; it may be fractional, as a mean over workers."""
    return torch.where(number > 0, number, torch.ones_like(number))


def _with_instances(
    found: Candidates, batch: Batch, labels: dict[str, Tensor], background: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For each proposal, (B, K): edges, index of the contained point, whether usable, whether
    empty.

    Proposals are the candidates and the pseudo-instances. A candidate is usable when it contains
    exactly one annotated snippet; with `background` also if it contains none.
    """
    before, latest = _points_until(batch)
    first = before.gather(1, found.start_t)  # points before the start cell
    until = before.gather(1, found.end_t + 1)
    one = found.valid & (until - first == 1)
    none = found.valid & (until == first) & background
    point = latest.gather(1, found.end_t).clamp(min=0)
    own = torch.arange(labels["start_t"].shape[1], device=point.device).expand_as(labels["start_t"])
    return (
        torch.cat([found.start_t + 0.5, labels["start_t"].float()], dim=1),
        torch.cat([found.end_t + 0.5, labels["end_t"].float() + 1], dim=1),
        torch.cat([point, own], dim=1),
        torch.cat([one | none, labels["valid"]], dim=1),
        torch.cat([none, torch.zeros_like(labels["valid"])], dim=1),
    )


def _points_until(batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, T+1) number of points before each snippet; (B, T) index of the last point up to it."""
    shape = (len(batch.mask), batch.mask.shape[1] + 1)
    valid = batch.point_t >= 0
    place = torch.where(valid, batch.point_t, shape[1] - 1)  # padding goes after the last snippet
    index = torch.arange(valid.shape[1], device=place.device).expand_as(place)
    at = torch.full(shape, -1, device=place.device).scatter_reduce(
        1, place, torch.where(valid, index, -1), "amax"
    )[:, :-1]
    before = F.pad((at >= 0).long().cumsum(dim=1), (1, 0))
    return before, at.cummax(dim=1).values


def _balance(overlap: Tensor, usable: Tensor, most: int, step: Step) -> tuple[Tensor, Tensor]:
    """The training proposals of a video: those with tIoU >= 0.5 and twice as many others.

    Deviation: at most a third of `most` of the former, drawn at random.

    Returns:
        (B, K) rows, and whether they count.
    """
    positive = usable & (overlap >= 0.5)
    draw = step.rand(*overlap.shape)
    order = torch.where(positive, 2 + draw, torch.where(usable, draw, -1.0))
    third = -(-most // (1 + NEGATIVES))
    best, rows_positive = torch.where(positive, order, -1.0).topk(min(third, order.shape[1]), dim=1)
    number = (best >= 0).sum(dim=1, keepdim=True)
    others, rows_other = torch.where(positive, -1.0, order).topk(
        min(NEGATIVES * third, order.shape[1]), dim=1
    )
    rank = torch.arange(others.shape[1], device=others.device)
    wanted = (others >= 0) & (rank < NEGATIVES * number.clamp(min=1))
    return torch.cat([rows_positive, rows_other], dim=1), torch.cat([best >= 0, wanted], dim=1)


def _dropout(model: Apn, rows: Tensor, hp: ApnTrain, step: Step) -> Tensor | None:
    """(B, K, layers, 2, W) scales of residual branches, drawn for the global batch."""
    if not hp.dropout:
        return None
    shape = (rows.shape[1], len(model.layers), 2, hp.encoder_width)
    kept = step.rand(len(rows), *shape) >= hp.dropout
    scale: Tensor = kept.float() / (1 - hp.dropout)
    return scale
