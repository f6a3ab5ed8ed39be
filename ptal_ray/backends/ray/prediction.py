"""Detections of many videos at once, as a pipeline of Ray Data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.backends.ray.spread import spread
from ptal_ray.data.types import Segments
from ptal_ray.prediction.run import Files, Scored, score_batch
from ptal_ray.prediction.trained import TrainedModel, load_model

COLUMNS = {"start_s": float, "end_s": float, "label": np.int64, "score": float}  # of segments


def score_spread(
    model: TrainedModel,
    batches: Sequence[Files],
    *,
    device: str,
    threads: int | None,
    workers: int,
    address: str | None,
) -> Iterator[Scored]:
    """Score batches with several processes.

    Args:
        model: its file and the features are at the same path on every node.
        batches: of the videos.
        device: "cpu" or "cuda".
        threads: of each process; None uses its part of the CPUs.
        workers: processes, see `spread`.
        address: of a running Ray cluster; None starts Ray on this machine.

    Raises:
        ConfigError: no cluster answers, or the workers do not fit on it.
    """
    rows = [{"batch": k} for k in range(len(batches))]
    arguments = (model.path.absolute(), tuple(batches), device, threads)
    for row in spread(
        rows,
        _Worker,
        arguments,
        device=device,
        workers=min(workers, len(rows)),
        address=address,
    ):
        yield _scored(batches[row["batch"]], json.loads(row["found"]))


class _Worker:
    """A model in its own process."""

    def __init__(
        self, path: Path, batches: Sequence[Files], device: str, threads: int | None, share: int
    ) -> None:
        torch.set_num_threads(threads or share)
        ids = tuple(file.id for batch in batches for file in batch)
        self._model, self._batches = load_model(path, torch.device(device), ids), batches

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        scored = score_batch(self._model, self._batches[row["batch"]])
        segments = {
            id: {name: getattr(own, name).tolist() for name in COLUMNS}
            for id, own in scored.detections.items()
        }
        found = json.dumps({"segments": segments, "broken": scored.broken})
        return {"batch": row["batch"], "found": found}


def _scored(files: Files, found: dict[str, Any]) -> Scored:
    """The result that a worker has sent as text."""
    detections = {
        id: Segments(
            **{name: np.array(own[name], dtype=kind) for name, kind in COLUMNS.items()},
        )
        for id, own in found["segments"].items()
    }
    return Scored(files=files, detections=detections, broken=found["broken"])
