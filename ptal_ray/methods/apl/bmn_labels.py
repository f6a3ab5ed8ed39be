"""Targets of BMN: boundary zones, and the overlap of every cell with instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ptal_ray.ops.boundary_matching import cells_on

LOW = 0.3  # tIoU above which a cell is close to a segment
POSITIVE = 0.5  # a snippet with a larger fraction in a boundary zone is a boundary
ZONE_T = 3.0  # snippets that a boundary covers


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Targets in [0, 1], see `label_maps`.

    Args:
        start, end: (B, T) fraction of a snippet in boundary zones.
        iou: (B, K) largest IoU of a cell with an instance.
        tnd: (B, K) squared distance of centres / enclosing length, to the instance of that IoU.
    """

    start: Tensor
    end: Tensor
    iou: Tensor
    tnd: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The targets from the instances of a batch, and the outputs that ignored instances exclude.

    Args:
        maps: from the instances that are not ignored.
        present: (B, C) bool, classes of these.
        open_start, open_end: (B, T) bool, boundaries of only ignored instances.
        open_cell: (B, K) bool, cells near an ignored instance and closer to it than to any other.
        open_class: (B, C) bool, classes of only ignored instances.
    """

    maps: LabelMaps
    present: Tensor
    open_start: Tensor
    open_end: Tensor
    open_cell: Tensor
    open_class: Tensor


def targets(
    segments: Mapping[str, Tensor], mask: Tensor, longest: int, num_classes: int
) -> Targets:
    """The targets of a batch.

    Args:
        segments: "start_t", "end_t" (B, N) edges in snippets of the crop, "label" (B, N) int64
            class or -1 for padding; "ignored" (B, N) bool, missing if none is ignored.
        mask: (B, T) bool.
        longest: see `cells`.
        num_classes: C.
    """
    lengths, length = mask.sum(dim=1), mask.shape[1]

    def maps(label: Tensor) -> LabelMaps:
        """The label maps of the segments that have a label."""
        start, end = (segments[name][:, : label.shape[1]] for name in ("start_t", "end_t"))
        return label_maps(start, end, label, lengths, length, longest)

    taught, ignored = segments["label"], segments["label"][:, :0]
    if (free := segments.get("ignored")) is not None:
        taught, ignored = taught.masked_fill(free, -1), taught.masked_fill(~free, -1)
    truth, other = maps(taught), maps(ignored)
    present, unsure = (_present(own, num_classes) for own in (taught, ignored))
    return Targets(
        maps=truth,
        present=present,
        open_start=(other.start > POSITIVE) & (truth.start <= POSITIVE),
        open_end=(other.end > POSITIVE) & (truth.end <= POSITIVE),
        open_cell=(other.iou > LOW) & (other.iou > truth.iou),
        open_class=unsure & ~present,
    )


def _present(label: Tensor, classes: int) -> Tensor:
    """(B, N) -> (B, C) bool, the classes that occur."""
    return F.one_hot(F.pad(label + 1, (0, 1)), classes + 1).amax(dim=1)[:, 1:] > 0


def label_maps(
    start_t: Tensor, end_t: Tensor, label: Tensor, lengths: Tensor, length: int, longest: int = 0
) -> LabelMaps:
    """Targets of a batch.

    Snippet t counts as [t - 1/2, t + 1/2] beside boundaries, whose zone is three snippets wide.
    Instances are clipped to the video. Remove those outside a crop first, because their boundaries
    would be at its edge.

    Args:
        start_t, end_t: (B, N) edges of instances, in snippets of the crop.
        label: (B, N) int64 class; -1 pads.
        lengths: (B,) number of real snippets.
        length: T, snippets with padding; targets on padding are undefined.
        longest: see `cells`, which lists the K cells.

    Source: BMN code; golden bmn label_maps; tND APL section 3, its use here PROPOSED.
    """
    # A column of padding, so that a batch without instances needs no special case.
    real = F.pad(label, (0, 1), value=-1) >= 0
    start, end = (
        torch.minimum(F.pad(edge.float(), (0, 1)).clamp(min=0), lengths[:, None].float())
        for edge in (start_t, end_t)
    )
    first, last = cells_on(label.device, length, longest)
    low, high = first.float(), last.float() + 1
    overlap = _overlap(start[..., None], end[..., None], low, high) * real[..., None]
    iou, nearest = overlap.max(dim=1)
    best_start, best_end = start.gather(1, nearest), end.gather(1, nearest)
    apart = (low + high - best_start - best_end) / 2
    around = torch.maximum(best_end, high) - torch.minimum(best_start, low)
    return LabelMaps(
        start=_zones(start, real, length), end=_zones(end, real, length), iou=iou,
        tnd=(apart / around).square(),
    )  # fmt: skip


def _overlap(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> Tensor:
    shared = (torch.minimum(end, high) - torch.maximum(start, low)).clamp_(min=0)
    return shared / ((end - start) + (high - low) - shared)


def _zones(boundary: Tensor, real: Tensor, length: int) -> Tensor:
    """(B, N) boundaries -> (B, T) largest fraction of a snippet in a zone."""
    t = torch.arange(length, device=boundary.device)
    covered = (ZONE_T / 2 + 0.5 - (t - boundary[..., None]).abs()).clamp(0, 1)
    return (covered * real[..., None]).amax(dim=1)
