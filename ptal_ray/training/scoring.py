"""Scores of videos with the current weights of a model, for decoding and its search."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptal_ray.data.batching import PackedSplit, stored_grid
from ptal_ray.data.types import Scores
from ptal_ray.errors import DivergedError
from ptal_ray.methods.method import AnyMethod, Batch, DecodeParams, TrainParams, with_values
from ptal_ray.training.decoding import DecodeResult, search_decode
from ptal_ray.training.selection import objective_of
from ptal_ray.training.task import Task
from ptal_ray.training.worker import Worker

SCORE_SNIPPETS = 4096  # padded snippets scored at once; limits memory


def score_videos(
    method: AnyMethod,
    model: nn.Module,
    split: PackedSplit,
    hp: TrainParams,
    precision: str = "fp32",
) -> list[Scores]:
    """The method's scores of every video of `split`, in its order, without gradients."""
    model.eval()
    found: dict[int, Scores] = {}
    bf16 = precision == "bf16"
    with torch.no_grad(), torch.autocast(split.device.type, torch.bfloat16, enabled=bf16):
        for rows in by_length(split.lengths, SCORE_SNIPPETS):
            scored = method.scores(model, whole_videos(split, rows), hp)
            found |= {int(row): score for row, score in zip(rows, scored, strict=True)}
    return [found[row] for row in range(len(split.ids))]


def scores_of(
    task: Task, worker: Worker, model: nn.Module, ids: tuple[str, ...], step: int
) -> list[Scores]:
    """The scores of `ids`, on rank 0; every worker scores a part.

    Args:
        task: with the data.
        worker: this worker of the trial.
        model: the model to evaluate.
        ids: in the order of the scores.
        step: optimiser steps done, for the message.

    Raises:
        DivergedError: one is not finite.
    """
    share, own = ids[worker.rank :: worker.world_size], []
    if share:
        split = task.split(share, worker.device)
        own = score_videos(task.method, model, split, task.hp, task.config.precision)
    scored = worker.gathered(own)
    if (bad := not_finite(scored)) is not None:
        raise DivergedError(f"scores of {bad}: not finite at step {step}; lower lr")
    by_id = {s.id: s for s in scored}
    return [by_id[i] for i in ids] if worker.rank == 0 else []


def best_decoding(
    task: Task, scores: list[Scores], label_length_s: Callable[[], float]
) -> DecodeResult[DecodeParams]:
    """The decode search of a trial.

    Args:
        task: with the data and the searched parameters.
        scores: one per video of `task.score_ids`; without any, the objective is NaN.
        label_length_s: see `objective_of`.
    """
    config, store, ids = task.config, task.store, task.score_ids
    start = with_values(task.method.decode_params, config.decode)
    if not ids:
        return DecodeResult(
            params=start, objective=math.nan, metrics={}, detections={}, table=(),
            cross_fitted=False,
        )  # fmt: skip
    return search_decode(
        task.method.decode,
        scores,
        [stored_grid(store, i, task.hp.resample_to) for i in ids],
        [store.duration_s(i) for i in ids],
        objective_of(
            store, ids, config.score_on, config.metric, label_length_s, task.method.supervision
        ),
        start=start,
        domains=config.decode_domains,
        settings=config.decode_settings,
        cross_fit=config.cross_fit,
        seed=config.fold_seed,
    )


def not_finite(scored: list[Scores]) -> str | None:
    """The id of a video with a score that is not finite, or None."""
    for s in scored:
        if not all(np.isfinite(a).all() for a in s.arrays.values() if a.dtype.kind == "f"):
            return s.id
    return None


def whole_videos(split: PackedSplit, rows: NDArray[np.int64]) -> Batch:
    """A batch of uncropped videos, with the point labels in `split`."""
    lengths = torch.from_numpy(split.lengths[rows]).to(split.device)
    kept = split.lengths[rows]
    longest = int(kept.max())
    zero = torch.zeros(len(rows), dtype=torch.int64, device=split.device)
    return Batch(
        ids=tuple(split.ids[r] for r in rows),
        features=split.features(rows, np.zeros_like(kept), kept, longest),
        mask=torch.arange(longest, device=split.device)[None] < lengths[:, None],
        point_t=torch.from_numpy(split.point_t[rows]).to(split.device),
        point_label=torch.from_numpy(split.point_label[rows]).to(split.device).float(),
        pair_t=torch.from_numpy(split.pair_t[rows]).to(split.device),
        pair_class=torch.from_numpy(split.pair_class[rows]).to(split.device),
        most_pairs=int((split.pair_t[rows] >= 0).sum(axis=1).max(initial=1)),
        crop_t=zero,
    )


def by_length(lengths: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Groups of rows of similar length, each of at most `most` padded snippets, or one video."""
    groups: list[list[int]] = []
    for row in np.argsort(-lengths, kind="stable"):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most:
            groups[-1].append(int(row))
        else:
            groups.append([int(row)])
    return [np.array(group) for group in groups]
