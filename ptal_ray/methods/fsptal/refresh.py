"""Pseudo-segments of FS-PTAL, on the stretched time axis."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ptal_ray.methods.fsptal.extension import extend
from ptal_ray.methods.fsptal.loss import mine_labels
from ptal_ray.methods.fsptal.model import Fsptal
from ptal_ray.methods.fsptal.params import FsptalTrain
from ptal_ray.methods.method import Batch, Pseudo
from ptal_ray.ops import mil
from ptal_ray.ops.sequence_search import (
    Windows,
    action_runs,
    class_windows,
    clipped_search,
    exact_search,
    splice,
)

Ints = NDArray[np.int64]


def refresh(model: Fsptal, batch: Batch, hp: FsptalTrain) -> Pseudo:
    """The action segments of the best sequences, each at the index of its first point.

    Segments without an original point are removed.

    Returns:
        "start_t", "end_t" (B, Q) stretched snippets, both included, -1 for none; "label" (B, Q);
        "first_t", "last_t" (B, Q) the original snippets they come from.
    """
    video = extend(batch, tau1=hp.tau1, tau2=hp.tau2, reach=hp.label_reach)
    _, score = model(video.features)
    fused = mil.fuse(score).nan_to_num()  # a diverged trial fails at its next report
    mined, action = mine_labels(fused, video.mask, video.label, hp)
    pair = (batch.pair_t[:, :, None] == batch.point_t[:, None]).float().argmax(dim=2)
    point = video.first_t.gather(1, pair).masked_fill(batch.pair_t < 0, -1)
    on_host = (
        v.cpu().numpy() for v in (fused.double(), mined, action > 0, point, batch.pair_class)
    )
    lengths = video.mask.sum(dim=1).tolist()
    start, end = (torch.from_numpy(v) for v in _search_batch(*on_host, lengths=lengths, hp=hp))
    start, end = start.to(fused.device), end.to(fused.device)
    old = video.position.round().long()
    return {
        "start_t": start,
        "end_t": end,
        "label": batch.pair_class,
        "first_t": old.gather(1, start.clamp(min=0)).clamp(min=0).masked_fill(start < 0, -1),
        "last_t": torch.minimum(
            old.gather(1, end.clamp(min=0)), batch.mask.sum(dim=1)[:, None] - 1
        ).masked_fill(start < 0, -1),
    }


def _search_batch(
    score: NDArray[np.float64],
    mined: NDArray[np.bool_],
    action: NDArray[np.bool_],
    point: Ints,
    pair_class: Ints,
    *,
    lengths: list[int],
    hp: FsptalTrain,
) -> tuple[Ints, Ints]:
    """Start and end, (B, Q), of the action segments of each video and class."""
    start, end = np.full(point.shape, -1, np.int64), np.full(point.shape, -1, np.int64)
    for row, length in enumerate(lengths):
        seeds = action[row, :length]
        for label in np.unique(pair_class[row][pair_class[row] >= 0]):
            others = np.delete(seeds, label, axis=1).any(axis=1)
            states = class_windows(seeds[:, label], mined[row, :length] | others)
            sums = np.concatenate([[0.0], np.cumsum(score[row, :length, label])])
            begins, ends = _segments(sums, states, length, hp)
            at = np.flatnonzero(pair_class[row] == label)
            place = np.searchsorted(point[row, at], begins)
            inside = place < len(at)
            inside[inside] = point[row, at[place[inside]]] <= ends[inside]
            slots = at[place[inside]]
            start[row, slots], end[row, slots] = begins[inside], ends[inside]
    return start, end


def _segments(
    sums: NDArray[np.float64], states: Windows, length: int, hp: FsptalTrain
) -> tuple[Ints, Ints]:
    clipped = hp.clipped == "both"
    if hp.segments == "splice":
        return splice(sums, states, hp.delta, clipped)
    search = clipped_search if clipped else exact_search
    return action_runs(search(sums, states, hp.delta), states, length)


def label_segments(pseudo: Pseudo, batch: Batch) -> list[Ints]:
    """(K, 3) first snippet, last snippet and class of each video's action segments."""
    columns = torch.stack([pseudo["first_t"], pseudo["last_t"], pseudo["label"]], dim=2)
    return [rows[rows[:, 0] >= 0] for rows in columns.cpu().numpy()]
