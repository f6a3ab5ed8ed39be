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
KEPT_SHARE = 0.5  # minimal fraction of an instance inside a crop
EDGE_T = 0.5  # a crop extends half a snippet beyond the centres of its end snippets


def annotated(known: Known, hp: TrainParams) -> Pseudo:
    """The annotated instances, see `table`."""
    return table(known.split, known.truth(), {})


def table(
    split: PackedSplit, taught: Mapping[str, Segments], ignored: Mapping[str, Segments]
) -> Pseudo:
    """The instances of each video.

    Args:
        split: the training videos.
        taught, ignored: instances by id, for training and to ignore.

    Returns:
        "start_t", "end_t" (V, K) float32; integers are the centres of snippets;
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
    """The instances of a crop in its positions, without those of which less than half is inside,
    except ignored ones.

    Args:
        pseudo: "start_t", "end_t" (B, K) edges (integers are the centres of snippets), "label" (B,
            K), -1 pads, and "ignored" (B, K) bool.
        crop_t, length: (B,) first snippet and number of snippets of the crop.
        edge_t: largest extent of instances beyond the first and last position of the crop.

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
    """The instances of the crops of a batch, see `cropped`, valid ones first."""
    assert batch.pseudo is not None
    made = cropped(batch.pseudo, batch.crop_t, batch.mask.sum(dim=1))
    real = made["label"] >= 0
    order = real.int().argsort(dim=1, descending=True, stable=True)[:, : used_columns(real)]
    return {name: value.gather(1, order) for name, value in made.items()}


def used_columns(real: Tensor) -> int:
    """Number of columns of (B, K) bool (True first in each row) that are not only padding.

    All columns on a GPU, to avoid a synchronisation; at least one.
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
