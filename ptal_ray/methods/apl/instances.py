"""Instances of the training videos as tables, and those of the crops of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.types import Segments
from ptal_ray.methods.method import Batch, Known, Pseudo, TrainParams

CENTRE_T = 0.5  # of a snippet, from its left edge
KEPT_SHARE = 0.5  # of an instance that lies in the crop, else the crop does not have it
EDGE_T = 0.5  # a crop reaches half a snippet beyond the centres of its first and last


def annotated(known: Known, hp: TrainParams) -> Pseudo:
    """What the annotations teach, see `table`."""
    return table(known.split, known.truth(), {})


def table(
    split: PackedSplit, taught: Mapping[str, Segments], ignored: Mapping[str, Segments]
) -> Pseudo:
    """The instances of each video.

    Args:
        split: the training videos.
        taught, ignored: instances by id, those that teach and those whose positions do not.

    Returns:
        "start_t", "end_t" (V, K) float32, where whole numbers are the centres of snippets;
        "label" (V, K) int64, -1 pads; "ignored" (V, K) bool.
    """
    none = Segments.empty()
    rows = [(taught.get(i, none), ignored.get(i, none)) for i in split.ids]
    most = max(1, *(len(a) + len(b) for a, b in rows))
    shape = (len(rows), most)
    start, end = np.full(shape, -1.0, np.float32), np.full(shape, -1.0, np.float32)
    label, free = np.full(shape, -1, np.int64), np.zeros(shape, np.bool_)
    for row, (pair, grid) in enumerate(zip(rows, split.grids, strict=True)):
        own = Segments.concatenate(pair)
        start[row, : len(own)] = grid.snippets(own.start_s) - CENTRE_T
        end[row, : len(own)] = grid.snippets(own.end_s) - CENTRE_T
        label[row, : len(own)] = own.label
        free[row, len(pair[0]) : len(own)] = True
    columns = {"start_t": start, "end_t": end, "label": label, "ignored": free}
    return {name: torch.from_numpy(v) for name, v in columns.items()}


def cropped(pseudo: Pseudo, crop_t: Tensor, length: Tensor, edge_t: float = EDGE_T) -> Pseudo:
    """The instances of a crop in its positions; those that lie in it by less than half are gone,
    but for ignored ones.

    Args:
        pseudo: "start_t", "end_t" (B, K) edges where whole numbers are the centres of snippets,
            "label" (B, K), -1 pads, and "ignored" (B, K) bool.
        crop_t, length: (B,) first snippet and number of snippets of the crop.
        edge_t: how far instances reach beyond the first and last position of the crop.

    Source: ActionFormer code; golden actionformer/truncate_feats.
    """
    first, last = (crop_t - edge_t)[:, None], (crop_t + length + edge_t)[:, None]
    start, end = pseudo["start_t"], pseudo["end_t"]
    inner_start, inner_end = start.clamp(min=first), end.clamp(max=last)
    inner = inner_end - inner_start
    inside = (inner >= KEPT_SHARE * (end - start)) | (pseudo["ignored"] & (inner > 0))
    return {
        "start_t": inner_start - crop_t[:, None],
        "end_t": inner_end - crop_t[:, None],
        "label": pseudo["label"].masked_fill(~inside, -1),
        "ignored": pseudo["ignored"],
    }


def instances(batch: Batch) -> Pseudo:
    """The instances of the crops of a batch, see `cropped`, those in them first."""
    assert batch.pseudo is not None
    made = cropped(batch.pseudo, batch.crop_t, batch.mask.sum(dim=1))
    real = made["label"] >= 0
    order = real.int().argsort(dim=1, descending=True, stable=True)[:, : used_columns(real)]
    return {name: value.gather(1, order) for name, value in made.items()}


def used_columns(real: Tensor) -> int:
    """How many columns of (B, K) bool, True first in each row, hold more than padding.

    All, where the answer would have to be waited for; at least one.
    """
    return max(1, int(real.sum(dim=1).max())) if real.device.type == "cpu" else real.shape[1]


def label_segments(pseudo: Pseudo, batch: None) -> list[NDArray[np.float64]]:
    """(K, 3) first snippet, last snippet and class of each video's labels, with fractions."""
    columns = [
        pseudo["start_t"].double() + CENTRE_T,
        pseudo["end_t"].double() + CENTRE_T - 1,
        pseudo["label"].double(),
    ]
    rows = torch.stack(columns, dim=2).cpu().numpy()
    taught = ((pseudo["label"] >= 0) & ~pseudo["ignored"]).cpu().numpy()
    return [row[own] for row, own in zip(rows, taught, strict=True)]
