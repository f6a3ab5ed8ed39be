"""Scores and edges of all positions, cached once, and detections from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.methods.apl import external
from ptal_ray.methods.apl.actionformer_network import ActionFormer, class_scores
from ptal_ray.methods.apl.actionformer_params import ActionFormerDecode, ActionFormerTrain
from ptal_ray.methods.method import Batch
from ptal_ray.ops.nms import batched_nms
from ptal_ray.ops.pyramid import level_masks, traced_lengths


def network(
    model: ActionFormer, features: Tensor, mask: Tensor, hp: ActionFormerTrain
) -> dict[str, Tensor]:
    """All levels, concatenated: "score" (B, N, C) and "edges" (B, N, 2) in positions.

    "mask" (B, T') is that of the features with padding at the end; level l has T' / 2^l positions.
    """
    features, mask = model.padded(features, mask)
    output = model(features, mask)
    score = class_scores(output, hp.quality_floor)
    return {"score": score, "edges": output.edges, "mask": mask}


def network_lengths(hp: ActionFormerTrain) -> tuple[int, int]:
    """See `traced_lengths`."""
    return traced_lengths(hp.window, hp.levels)


def scores(model: ActionFormer, batch: Batch, hp: ActionFormerTrain) -> list[Scores]:
    """For each level l "score<l>" (T_l, C) and "edges<l>" (T_l, 2), distances in snippets.

    With external scores, the class scores are those of the video times the best of the detector.
    """
    made = network(model, batch.features, batch.mask, hp)
    score, masks = made["score"], level_masks(made["mask"], model.levels_above)
    sizes = [own.shape[1] for own in masks]
    if hp.external_scores:
        classes = np.stack([external.best(hp.external_scores, id) for id in batch.ids])
        score = score.amax(dim=2, keepdim=True) * torch.from_numpy(classes).to(score)[:, None]
    arrays: list[dict[str, Any]] = [{} for _ in batch.ids]
    parts = zip(
        torch.split(score, sizes, dim=1),
        torch.split(made["edges"], sizes, dim=1),
        masks,
        strict=True,
    )
    for level, (own_score, own_edges, own_mask) in enumerate(parts):
        lengths = own_mask.sum(dim=1).tolist()
        found = (own_score.cpu().numpy(), (own_edges * 2**level).cpu().numpy())
        for row, length in enumerate(lengths):
            arrays[row][f"score{level}"] = found[0][row, :length]
            arrays[row][f"edges{level}"] = found[1][row, :length]
    return [Scores(id=id, arrays=own) for id, own in zip(batch.ids, arrays, strict=True)]


def decode(found: Scores, grid: Grid, duration_s: float, hp: ActionFormerDecode) -> Segments:
    """Suppressed candidates of all levels, inside the video.

    Source: ActionFormer code; golden actionformer/tiny_model.
    """
    kept = suppressed(candidates(found, grid, hp), hp)
    start_s, end_s = np.clip(kept.start_s, 0, duration_s), np.clip(kept.end_s, 0, duration_s)
    inside = Segments(start_s=start_s, end_s=end_s, label=kept.label, score=kept.score)
    return inside.take(end_s > start_s)


def suppressed(every: Segments, hp: ActionFormerDecode) -> Segments:
    """The candidates after suppression."""
    return batched_nms(
        every,
        tiou=hp.nms_tiou,
        sigma=hp.sigma,
        min_score=hp.min_score,
        most=hp.most,
        soft=hp.soft,
        multiclass=hp.multiclass,
        voting_tiou=hp.voting_tiou,
    )


def candidates(found: Scores, grid: Grid, hp: ActionFormerDecode) -> Segments:
    """The best scores of each level above the minimum, with their edges."""
    return Segments.concatenate(
        [_level(found, level, grid, hp) for level in range(len(found.arrays) // 2)]
    )


def _level(found: Scores, level: int, grid: Grid, hp: ActionFormerDecode) -> Segments:
    score, edges = found.arrays[f"score{level}"], found.arrays[f"edges{level}"]
    position, label = np.nonzero(score > hp.score_floor)
    value = score[position, label]
    best = _best(value, hp.candidates)
    position, label, value = position[best], label[best], value[best]
    t = position * 2.0**level + 0.5  # the centre of the snippet
    start_t, end_t = t - edges[position, 0], t + edges[position, 1]
    long = end_t - start_t > hp.shortest_t
    every = Segments(
        start_s=grid.seconds(start_t),
        end_s=grid.seconds(end_t),
        label=label.astype(np.int64),
        score=value.astype(np.float64),
    )
    return every.take(long)


def _best(value: NDArray[Any], number: int) -> NDArray[np.int64]:
    """Rows of the highest values, descending; equal values keep their order."""
    if len(value) > number:
        cut = np.partition(value, len(value) - number)[len(value) - number]
        above, level = np.flatnonzero(value > cut), np.flatnonzero(value == cut)
        rows = np.sort(np.concatenate([above, level[: number - len(above)]]))
    else:
        rows = np.arange(len(value))
    return rows[np.argsort(-value[rows], kind="stable")]
