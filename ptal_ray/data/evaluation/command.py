"""Detection mAP of files in the ActivityNet layout, as an object for programs and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.evaluation.detection_notes import Note, detection_notes, zero_cause
from ptal_ray.data.evaluation.detections import (
    DetectionFile,
    GroundTruth,
    read_detections,
    read_ground_truth,
)
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.ops.metrics import MapResult, detection_map
from ptal_ray.ops.segments import official_tiou, paired_tiou

MOST_TIOU = 1000  # thresholds; a step too small would fill the memory


def parse_tiou(text: str) -> tuple[float, ...]:
    """Thresholds of "0.1:0.7:0.1" (both ends included) or "0.3,0.5,0.7".

    Raises:
        ConfigError: not such a list, or not in (0, 1].
    """
    try:
        if ":" in text:
            start, stop, step = (Decimal(part) for part in text.split(":"))
            number = int((stop - start) / step) + 1 if step > 0 else 0
            number = number if number <= MOST_TIOU else 0
            values = [float(start + step * k) for k in range(number)]
        else:
            values = [float(Decimal(part)) for part in text.split(",")]
    except (InvalidOperation, ValueError, OverflowError):
        values = []
    if not values or not all(0 < v <= 1 for v in values):
        raise ConfigError(
            f"--tiou {text}: give start:stop:step or a comma-separated list in (0, 1], e.g. "
            f"0.1:0.7:0.1, with at most {MOST_TIOU} thresholds"
        )
    return tuple(values)


def evaluate(
    truth_path: Path,
    predictions_path: Path,
    tiou: tuple[float, ...],
    subset: str | None,
    *,
    drop_degenerate: bool = False,
    exclude: Set[str] = frozenset(),
    drop_labels: Set[str] = frozenset(),
    normalized: bool = False,
) -> dict[str, Any]:
    """The dictionary that --json prints.

    Args:
        truth_path, predictions_path: files in the ActivityNet layout.
        tiou: thresholds.
        subset: which subset of the ground truth; None if the file has only one.
        drop_degenerate: leave out segments that are not finite, reversed or of length zero, except
            instances of length zero and detections that equal one.
        exclude, drop_labels: videos, and classes with their instances, to leave out.
        normalized: mAP_N in place of mAP, see `detection_map`.

    Raises:
        DataError: a file is unreadable or of another layout.
    """
    truth = read_ground_truth(
        truth_path, subset, drop_degenerate=drop_degenerate, exclude=exclude,
        drop_labels=drop_labels,
    )  # fmt: skip
    found = read_detections(predictions_path, truth, drop_degenerate=drop_degenerate)
    overlap = paired_tiou if drop_degenerate else official_tiou
    result = detection_map(
        truth.segments, found.segments, len(truth.classes), tiou, overlap, normalized
    )
    described = _described(truth, found, result, detection_notes(truth, found))
    if not result.per_tiou.any():
        described["notes"].append(f"mAP is 0: {zero_cause(truth, found, min(tiou))}")
    return described


def _described(
    truth: GroundTruth, found: DetectionFile, result: MapResult, notes: Sequence[Note]
) -> dict[str, Any]:
    keys = [f"{t:.2f}" if round(t, 2) == t else f"{t:g}" for t in result.tiou]
    return {
        "mAP": dict(zip(keys, result.per_tiou.tolist(), strict=True)),
        "average": result.average,
        "per_class": {
            name: dict(zip(keys, row.tolist(), strict=True))
            for name, row in zip(truth.classes, result.per_class, strict=True)
        },
        "instances_per_class": _counts(truth.segments, truth.classes),
        "detections_per_class": _counts(found.segments, truth.classes),
        "ignored": found.ignored | truth.ignored,
        "noticed": {n.reason: n.number for n in notes if n.reason != "unknown_label"},
        "notes": [n.text for n in notes if n.number],
        "videos": len(truth.segments),
        "instances": sum(map(len, truth.segments.values())),
        "detections": sum(map(len, found.segments.values())),
    }


def _counts(segments: Mapping[str, Segments], classes: Sequence[str]) -> dict[str, int]:
    labels = Segments.concatenate([Segments.empty(), *segments.values()]).label
    counts = np.bincount(labels, minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def table(result: dict[str, Any]) -> str:
    """`result` as text: one row per class, the mean, what was left out and noticed."""
    keys = list(result["mAP"])
    width = max(7, *(len(name) for name in result["per_class"]))
    lines = [" " * width + "".join(f"{'@' + k:>8}" for k in keys) + f"{'avg':>8}"]
    for name, row in [*result["per_class"].items(), ("mAP", result["mAP"])]:
        values = [row[k] for k in keys]
        cells = "".join(f"{100 * v:8.2f}" for v in [*values, math.fsum(values) / len(values)])
        lines.append(f"{name:<{width}}{cells}")
    ignored, noticed = (
        ", ".join(f"{reason} {n}" for reason, n in result[part].items() if n)
        for part in ("ignored", "noticed")
    )
    lines.append(
        f"{result['videos']} videos, {result['instances']} instances, "
        f"{result['detections']} detections; "
        + (f"left out: {ignored}; " if ignored else "")
        + f"noticed: {noticed or 'nothing'}"
    )
    return "\n".join(lines)
