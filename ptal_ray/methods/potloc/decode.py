"""Scores of all levels, cached once, and detections from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.method import Batch
from ptal_ray.methods.potloc.model import Potloc
from ptal_ray.methods.potloc.params import PotlocDecode, PotlocTrain
from ptal_ray.ops import mil
from ptal_ray.ops.nms import hard_nms
from ptal_ray.ops.pyramid import level_masks, traced_lengths
from ptal_ray.ops.score_runs import detections, score_arrays


def network(model: Potloc, features: Tensor, mask: Tensor, hp: PotlocTrain) -> dict[str, Tensor]:
    """For each level l fused "score<l>" (B, T_l, C + 1) and "video<l>" (B, C)."""
    made = {}
    levels, masks = model(*model.padded(features, mask))
    for level, (score, own) in enumerate(zip(levels, masks, strict=True)):
        made[f"score{level}"] = mil.fuse(score)
        made[f"video{level}"] = mil.video_scores(score[..., :-1], own, hp.r_act)
    return made


def network_lengths(hp: PotlocTrain) -> tuple[int, int]:
    """See `traced_lengths`."""
    return traced_lengths(hp.window, hp.levels)


def scores(model: Potloc, batch: Batch, hp: PotlocTrain) -> list[Scores]:
    """For each level l "video<l>" (C,), "score<l>" (T_l, C) and "action<l>" (T_l,), fused."""
    made = network(model, batch.features, batch.mask, hp)
    arrays: list[dict[str, Any]] = [{} for _ in batch.ids]
    for level, mask in enumerate(level_masks(batch.mask, model.levels)):
        lengths = mask.sum(dim=1).tolist()
        found = score_arrays(made[f"score{level}"], made[f"video{level}"], lengths)
        for own, new in zip(arrays, found, strict=True):
            own |= {f"{name}{level}": array for name, array in new.items()}
    return [Scores(id=id, arrays=own) for id, own in zip(batch.ids, arrays, strict=True)]


def decode(found: Scores, grid: Grid, duration_s: float, hp: PotlocDecode) -> Segments:
    """Runs above thresholds on every level with score inner - outer + gamma * video score.

    Every level is interpolated to the same distance of samples. The levels share one suppression.

    Source: POTLoc code; golden potloc_model.
    """
    low = np.arange(hp.score_start, max(hp.score_stop, hp.score_start + 1e-6), hp.score_step)
    high = np.arange(hp.action_start, hp.action_stop, hp.action_step)
    parts = []
    for level in range(len(found.arrays) // 3):
        own = {name: found.arrays[f"{name}{level}"] for name in ("video", "score", "action")}
        size = 2**level
        parts.append(
            detections(
                Scores(id=found.id, arrays=own),
                Grid(stride_s=grid.stride_s * size, offset_s=grid.offset_s),
                duration_s,
                replace(hp, scale=hp.scale * size),
                low,
                high,
            )
        )
    return hard_nms(Segments.concatenate(parts), hp.nms_tiou, hp.nms_plus_one_second)
