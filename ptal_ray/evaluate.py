"""Detection mAP of files in the ActivityNet layout.

    python -m ptal_ray.evaluate GT.json PRED.json --tiou 0.1:0.7:0.1 --subset test

Classes are the labels of the evaluated ground truth. Detections in videos it lacks are false
positives; detections of labels it lacks, with values that are not finite or with an end that is
not after the start are left out. All of these are counted and shown. Equal scores keep the order
of the file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ptal_ray.console import run_main
from ptal_ray.data.detections import read_detections, read_ground_truth
from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.ops.metrics import detection_map


def parse_tiou(text: str) -> tuple[float, ...]:
    """Thresholds of "0.1:0.7:0.1" (both ends included) or "0.3,0.5,0.7".

    Raises:
        ConfigError: not such a list, or not in (0, 1].
    """
    try:
        if ":" in text:
            start, stop, step = (Decimal(part) for part in text.split(":"))
            number = int((stop - start) / step) + 1 if step > 0 else 0
            values = [float(start + step * k) for k in range(number)]
        else:
            values = [float(Decimal(part)) for part in text.split(",")]
    except (InvalidOperation, ValueError, OverflowError):
        values = []
    if not values or not all(0 < v <= 1 for v in values):
        raise ConfigError(
            f"--tiou {text}: start:stop:step or a comma-separated list in (0, 1] is needed, "
            "such as 0.1:0.7:0.1"
        )
    return tuple(values)


def evaluate(
    truth_path: Path, predictions_path: Path, tiou: tuple[float, ...], subset: str | None
) -> dict[str, Any]:
    """The object that --json prints.

    Raises:
        DataError: a file is unreadable or of another layout.
    """
    truth = read_ground_truth(truth_path, subset)
    found, counts = read_detections(predictions_path, truth)
    result = detection_map(truth.segments, found, len(truth.classes), tiou)
    keys = [f"{t:.2f}" if round(t, 2) == t else f"{t:g}" for t in tiou]
    return {
        "mAP": dict(zip(keys, result.per_tiou.tolist(), strict=True)),
        "average": result.average,
        "per_class": {
            name: dict(zip(keys, row.tolist(), strict=True))
            for name, row in zip(truth.classes, result.per_class, strict=True)
        },
        "ignored": counts | truth.ignored,
        "videos": len(truth.segments),
        "instances": sum(map(len, truth.segments.values())),
        "detections": sum(map(len, found.values())),
    }


def table(result: dict[str, Any]) -> str:
    """`result` as text: a row a class, the mean, and what was left out."""
    keys = list(result["mAP"])
    width = max(7, *(len(name) for name in result["per_class"]))
    lines = [" " * width + "".join(f"{'@' + k:>8}" for k in keys) + f"{'avg':>8}"]
    for name, row in [*result["per_class"].items(), ("mAP", result["mAP"])]:
        values = [row[k] for k in keys]
        cells = "".join(f"{100 * v:8.2f}" for v in [*values, math.fsum(values) / len(values)])
        lines.append(f"{name:<{width}}{cells}")
    counted = [f"{reason} {n}" for reason, n in result["ignored"].items() if n]
    lines.append(
        f"{result['videos']} videos, {result['instances']} instances, "
        f"{result['detections']} detections; noticed: {', '.join(counted) or 'nothing'}"
    )
    return "\n".join(lines)


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
    args = parser.parse_args(argv)
    try:
        result = evaluate(args.truth, args.predictions, parse_tiou(args.tiou), args.subset)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(result) if args.json else table(result))
    return 0


if __name__ == "__main__":
    run_main(main)
