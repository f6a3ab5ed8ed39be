"""Pseudo-sequences of LACP: seeds around the points, then the best sequence of each class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ptal_ray.methods.lacp.model import Lacp
from ptal_ray.methods.lacp.params import LacpTrain
from ptal_ray.methods.method import Batch, Pseudo
from ptal_ray.ops import mil
from ptal_ray.ops.seeds import extend_points, mine_background
from ptal_ray.ops.sequence_search import (
    Windows,
    action_runs,
    beam_search,
    class_windows,
    exact_search,
)


def refresh(model: Lacp, batch: Batch, hp: LacpTrain) -> Pseudo:
    """The action runs of the best sequences, each at the index of its first point.

    Returns:
        "start_t", "end_t" (B, Q) snippets, both included, -1 for none; "label" (B, Q).
    """
    _, score = model(batch.features)
    fused = mil.fuse(score).nan_to_num()  # a diverged trial fails at its next report
    background = fused[..., -1]
    mined = mine_background(background, batch.mask, batch.point_t, hp.background_threshold)
    first, last = extend_points(background, mined, batch.mask, batch.point_t, hp.action_threshold)
    on_host = (v.cpu().numpy() for v in (fused.double(), mined, first, last))
    start, end = _search_batch(*on_host, batch=batch, hp=hp)
    device = batch.features.device
    return {
        "start_t": torch.from_numpy(start).to(device),
        "end_t": torch.from_numpy(end).to(device),
        "label": batch.pair_class,
    }


def _search_batch(
    score: NDArray[np.float64],
    mined: NDArray[np.bool_],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    *,
    batch: Batch,
    hp: LacpTrain,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end, (B, Q), of the action runs of each video and class."""
    own = (batch.point_label > 0).cpu().numpy()
    pair_t, pair_class = batch.pair_t.cpu().numpy(), batch.pair_class.cpu().numpy()
    start, end = np.full(pair_t.shape, -1, np.int64), np.full(pair_t.shape, -1, np.int64)
    for row, length in enumerate(batch.mask.sum(dim=1).tolist()):
        seeds = _seeds(first[row], last[row], own[row], length)
        for label in np.unique(pair_class[row][pair_class[row] >= 0]):
            others = np.delete(seeds, label, axis=1).any(axis=1)
            states = class_windows(seeds[:, label], mined[row, :length] | others)
            sums = np.concatenate([[0.0], np.cumsum(score[row, :length, label])])
            begins, ends = action_runs(_search(sums, states, hp), states, length)
            at = np.flatnonzero(pair_class[row] == label)
            slots = at[np.searchsorted(pair_t[row, at], begins)]
            start[row, slots], end[row, slots] = begins, ends
    return start, end


def _seeds(
    first: NDArray[np.int64], last: NDArray[np.int64], own: NDArray[np.bool_], length: int
) -> NDArray[np.bool_]:
    """(T, C) the classes of the points, over the extent of their labels."""
    seeds = np.zeros((length, own.shape[1]), bool)
    for low, high, classes in zip(first, last, own, strict=True):
        seeds[max(low, 0) : high + 1] |= classes
    return seeds


def _search(sums: NDArray[np.float64], states: Windows, hp: LacpTrain) -> NDArray[np.int64]:
    if hp.pseudo_search == "exact":
        return exact_search(sums, states, hp.delta)
    return beam_search(sums, states, hp.delta, budget=hp.beam_budget, prune=hp.beam_prune)


def label_segments(pseudo: Pseudo, batch: Batch) -> list[NDArray[np.int64]]:
    """(K, 3) first snippet, last snippet and class of each video's action runs."""
    columns = torch.stack([pseudo["start_t"], pseudo["end_t"], pseudo["label"]], dim=2)
    return [rows[rows[:, 0] >= 0] for rows in columns.cpu().numpy()]
