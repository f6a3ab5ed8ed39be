"""Detection mAP of files in the ActivityNet layout.

    python -m ptal_ray.evaluate GT.json PRED.json --tiou 0.1:0.7:0.1 --subset test

Classes are the labels of the evaluated ground truth. Values are those of the official ActivityNet
code, on degenerate segments too: detections of no length or with an end before the start count, as
do such instances; a score of NaN ranks first, and an overlap of 0/0 is a match. --drop-degenerate
leaves them out. Two things differ: detections of labels the ground truth lacks are left out (the
official code stops), and video ids are matched with and without "v_". Equal scores keep the order
of the file. Detections in videos the ground truth lacks are false positives. What was noticed is
counted in the last line and explained on standard error.
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible

# isort: split
import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.choice import PROTOCOLS, named_ids
from ptal_ray.data.detection_notes import Note, detection_notes, zero_cause
from ptal_ray.data.detections import DetectionFile, GroundTruth, read_detections, read_ground_truth
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.ops.metrics import MapResult, detection_map
from ptal_ray.ops.segments import official_tiou, paired_tiou
from ptal_ray.process.console import run_main

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
            f"--tiou {text}: start:stop:step or a comma-separated list in (0, 1] is needed, "
            f"such as 0.1:0.7:0.1, and at most {MOST_TIOU} of them"
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
) -> dict[str, Any]:
    """The object that --json prints.

    Args:
        truth_path, predictions_path: files in the ActivityNet layout.
        tiou: thresholds.
        subset: which subset of the ground truth; None where the file has one.
        drop_degenerate: leave out what is not finite, reversed or of length zero, except
            instances of length zero and detections that equal one.
        exclude, drop_labels: videos, and classes with their instances, to leave out.

    Raises:
        DataError: a file is unreadable or of another layout.
    """
    truth = read_ground_truth(
        truth_path, subset, drop_degenerate=drop_degenerate, exclude=exclude,
        drop_labels=drop_labels,
    )  # fmt: skip
    found = read_detections(predictions_path, truth, drop_degenerate=drop_degenerate)
    overlap = paired_tiou if drop_degenerate else official_tiou
    result = detection_map(truth.segments, found.segments, len(truth.classes), tiou, overlap)
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
    """`result` as text: a row a class, the mean, what was left out and noticed."""
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


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("truth", type=Path, metavar="GT.json")
    parser.add_argument("predictions", type=Path, metavar="PRED.json")
    parser.add_argument("--tiou", default="0.1:0.7:0.1", help="start:stop:step or a comma list")
    parser.add_argument("--subset", help="which subset of the ground truth, e.g. test")
    parser.add_argument("--json", action="store_true", help="print one JSON object of fractions")
    parser.add_argument(
        "--drop-degenerate",
        action="store_true",
        help="leave out values that are not finite and segments whose end is not after their "
        "start, except instances of length 0 and detections equal to one",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME|FILE|ID,..",
        help="videos to leave out of both files: those of a protocol, such as thumos14-210 "
        f"({', '.join(PROTOCOLS)}), ids, or a file of one a line",
    )
    parser.add_argument(
        "--drop-label",
        action="append",
        default=[],
        metavar="NAME",
        help="a class to leave out with its instances and detections, e.g. Ambiguous",
    )
    args = parser.parse_args(argv)
    try:
        result = evaluate(
            args.truth,
            args.predictions,
            parse_tiou(args.tiou),
            args.subset,
            drop_degenerate=args.drop_degenerate,
            exclude=frozenset[str]().union(*map(named_ids, args.exclude)),
            drop_labels=frozenset(args.drop_label),
        )
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(result) if args.json else table(result))
    for text in result["notes"]:
        print(f"note: {text}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_main(main)
