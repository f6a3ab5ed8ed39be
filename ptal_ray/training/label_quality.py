"""Quality of pseudo-labels: a diagnosis with annotations that training and search do not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ptal_ray.data.batching import PackedSplit
from ptal_ray.data.datasets import protocol
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import Pseudo
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.segments import tiou
from ptal_ray.training.scoring import SCORE_SNIPPETS, by_length, whole_videos
from ptal_ray.training.selection import ground_truth, map_metrics
from ptal_ray.training.task import Task

GOOD_TIOU = 0.5  # a label of the right class with a higher tIoU counts as correct


def label_quality(
    task: Task, model: nn.Module, split: PackedSplit, made: Pseudo | None = None
) -> dict[str, float]:
    """The quality of the pseudo-labels of a training split with the current weights.

    Args:
        task: of a method with pseudo-labels. Videos that are annotated for it are ignored.
        model: its module; it is in evaluation mode afterwards.
        split: videos with points, and with annotations.
        made: the labels of every row, if an earlier stage made them; else the model computes them.

    Returns:
        "mAP_0.50", ..., as `selection.map_metrics`; every instance has the score 1. And those of
        `label_accuracy`. Empty if all videos are annotated.

    Raises:
        ConfigError: the method has no pseudo-labels, or the split has test videos.
        DataError: no video has an annotated instance.

    Source: APN Table 4; APL Figure 3c.
    """
    method = task.method
    if method.label_segments is None or (method.refresh is None and made is None):
        raise ConfigError(f"{method.name}: has no pseudo-labels whose quality could be measured")
    found = label_instances(task, model, split, made)
    if not found:
        return {}
    truth = ground_truth(split.store, [id for id in split.ids if id in found], "val")
    rules = protocol(split.store.info.name, method.supervision)
    result = detection_map(truth, found, split.store.info.num_classes, rules.tiou)
    return map_metrics(result.per_tiou, rules) | label_accuracy(truth, found)


def label_instances(
    task: Task, model: nn.Module, split: PackedSplit, made: Pseudo | None = None
) -> dict[str, Segments]:
    """The action instances of the pseudo-labels of a training split, in seconds.

    Args:
        task, model, split, made: as for `label_quality`.

    Returns:
        Instances of score 1, by id of the videos that are not annotated for the method.
    """
    model.eval()
    annotated = set(task.annotated)
    found: dict[str, Segments] = {}
    for part in by_length(split.lengths, SCORE_SNIPPETS):
        rows = np.array([row for row in part if split.ids[row] not in annotated], np.int64)
        if not len(rows):
            continue
        with torch.no_grad():
            instances = _instances(task, model, split, made, rows)
        for row, instance in zip(rows, instances, strict=True):
            grid = split.grids[row]
            found[split.ids[row]] = Segments(
                start_s=grid.seconds(instance[:, 0]),
                end_s=grid.seconds(instance[:, 1] + 1),
                label=instance[:, 2].astype(np.int64),
                score=np.ones(len(instance)),
            )
    return found


def label_length_s(
    task: Task, model: nn.Module, split: PackedSplit, made: Pseudo | None = None
) -> float:
    """Mean length in seconds of the pseudo-labels of a training split with the current weights.

    It is limited to the mean time of the videos per point, because labels that do not overlap
    cannot be longer. Early in training, labels can be many times longer.

    Args:
        task, model, split, made: as for `label_quality`; `task` of any method.

    Returns:
        Seconds; NaN if the method has no pseudo-labels, or they have no instance.
    """
    method = task.method
    if method.label_segments is None or (method.refresh is None and made is None):
        return float("nan")
    instances = label_instances(task, model, split, made)
    found = Segments.concatenate([Segments.empty(), *instances.values()])
    if not len(found):
        return float("nan")
    store, ids = split.store, split.ids
    points = sum(len(store.points(id)) for id in ids)
    most = sum(store.duration_s(id) for id in ids) / points if points else np.inf
    return float(min((found.end_s - found.start_s).mean(), most))


def label_accuracy(
    truth: Mapping[str, Segments], found: Mapping[str, Segments]
) -> dict[str, float]:
    """Accuracy of the labels of all videos, each compared with the instance that it overlaps most.

    Args:
        truth, found: instances and labels by video.

    Returns:
        "class_accuracy": fraction with its class; "mean_tiou": mean overlap with it;
        "positive_accuracy": fraction with its class and an overlap above 0.5. Labels that overlap
        nothing are wrong. "number": of the labels; the only key if it is 0.

    Source: APL Figure 3c; that the instance is the one of highest overlap is PROPOSED.
    """
    right, overlap = [np.zeros(0, bool)], [np.zeros(0)]
    for id, own in found.items():
        every = truth[id]
        shared = tiou(own.start_s, own.end_s, every.start_s, every.end_s)
        shared = np.concatenate([shared, np.zeros((len(own), 1))], axis=1)
        best = shared.argmax(axis=1)
        overlap.append(shared.max(axis=1))
        label = np.append(every.label, -1)
        right.append((label[best] == own.label) & (overlap[-1] > 0))
    correct, shares = np.concatenate(right), np.concatenate(overlap)
    if not len(shares):
        return {"number": 0.0}
    return {
        "class_accuracy": float(correct.mean()),
        "mean_tiou": float(shares.mean()),
        "positive_accuracy": float((correct & (shares > GOOD_TIOU)).mean()),
        "number": float(len(shares)),
    }


def _instances(
    task: Task, model: nn.Module, split: PackedSplit, made: Pseudo | None, rows: NDArray[np.int64]
) -> list[NDArray[Any]]:
    """The instances of the labels of these videos, see `Method.label_segments`."""
    method = task.method
    assert method.label_segments is not None
    if made is not None:
        index = torch.from_numpy(rows).to(next(iter(made.values())).device)
        return method.label_segments({name: table[index] for name, table in made.items()}, None)
    assert method.refresh is not None
    batch = whole_videos(split, rows)
    return method.label_segments(method.refresh(model, batch, task.hp), batch)
