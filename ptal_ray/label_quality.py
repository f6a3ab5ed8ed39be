"""How good pseudo-labels are: a diagnosis with annotations that no training and no search sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.datasets import protocol
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import Batch, Method, Pseudo
from ptal_ray.ops.metrics import detection_map
from ptal_ray.scoring import SCORE_SNIPPETS, by_length, whole_videos
from ptal_ray.selection import ground_truth, map_metrics


def label_quality(
    method: Method, model: nn.Module, split: PackedSplit, hp: Any, made: Pseudo | None = None
) -> dict[str, float]:
    """mAP of the pseudo-labels that the present weights give the videos of a training split.

    Args:
        method: one with pseudo-labels.
        model: its module; left in evaluation mode.
        split: videos with points, and with annotations.
        hp: train parameters.
        made: the labels of every row, where an earlier stage made them; else the model refreshes
            them.

    Returns:
        "mAP_0.50", ..., as `selection.map_metrics`; every instance has the score 1.

    Raises:
        ConfigError: the method has no pseudo-labels, or the split holds test videos.
        DataError: no video has an annotated instance.

    Source: APN Table 4.
    """
    if method.label_segments is None or (method.refresh is None and made is None):
        raise ConfigError(f"{method.name}: has no pseudo-labels whose quality could be measured")
    model.eval()
    found: dict[str, Segments] = {}
    for rows in by_length(split.lengths, SCORE_SNIPPETS):
        batch = whole_videos(split, rows)
        with torch.no_grad():
            instances = method.label_segments(_labels(method, model, batch, hp, made, rows), batch)
        for row, instance in zip(rows, instances, strict=True):
            grid = split.grids[row]
            found[split.ids[row]] = Segments(
                start_s=grid.seconds(instance[:, 0]),
                end_s=grid.seconds(instance[:, 1] + 1),
                label=instance[:, 2],
                score=np.ones(len(instance)),
            )
    truth = ground_truth(split.store, split.ids, "val")
    rules = protocol(split.store.info.name)
    result = detection_map(truth, found, split.store.info.num_classes, rules.tiou)
    return map_metrics(result.per_tiou, rules)


def _labels(
    method: Method,
    model: nn.Module,
    batch: Batch,
    hp: Any,
    made: Pseudo | None,
    rows: NDArray[np.int64],
) -> Pseudo:
    if made is not None:
        index = torch.from_numpy(rows).to(batch.mask.device)
        return {name: table[index] for name, table in made.items()}
    assert method.refresh is not None
    return method.refresh(model, batch, hp)
