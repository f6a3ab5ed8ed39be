"""Detection mAP of files in the ActivityNet layout.

    python -m ptal_ray.evaluate GT.json PRED.json --tiou 0.1:0.7:0.1 --subset test

Classes are the labels of the evaluated ground truth. Values are those of the official ActivityNet
code, also on degenerate segments: instances and detections of length zero, or with an end before
the start, count; a score of NaN ranks first; an overlap of 0/0 is a match. --drop-degenerate
removes them. There are two differences: detections with a label that the ground truth lacks are
ignored (the official code stops), and video ids match with and without "v_". Equal scores keep the
order of the file. Detections in videos that the ground truth lacks are false positives. The last
line counts anomalies; standard error explains them.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("evaluate"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("truth", type=Path, metavar="GT.json")
    parser.add_argument("predictions", type=Path, metavar="PRED.json")
    parser.add_argument(
        "--tiou", default="0.1:0.7:0.1", help="start:stop:step or a comma-separated list"
    )
    parser.add_argument("--subset", help="subset of the ground truth to evaluate, e.g. test")
    parser.add_argument(
        "--normalized",
        action="store_true",
        help="print mAP_N of DETAD: precision as if every class had as many instances as the "
        "classes have on average",
    )
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
        help="videos to leave out of both files: those of a protocol, such as thumos14-210, ids, "
        "or a file with one id per line",
    )
    parser.add_argument(
        "--drop-label",
        action="append",
        default=[],
        metavar="NAME",
        help="a class to leave out with its instances and detections, e.g. Ambiguous",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.data.evaluation.command import evaluate, parse_tiou, table
    from ptal_ray.data.exclusions import excluded_ids
    from ptal_ray.data.user_files import nfc

    def work() -> int:
        """Evaluate the predictions and print the result."""
        result = evaluate(
            args.truth,
            args.predictions,
            parse_tiou(args.tiou),
            args.subset,
            drop_degenerate=args.drop_degenerate,
            exclude=excluded_ids(args.exclude),
            drop_labels=frozenset(map(nfc, args.drop_label)),
            normalized=args.normalized,
        )
        print(json.dumps(result) if args.json else table(result))
        for text in result["notes"]:
            print(f"note: {text}", file=sys.stderr)
        return 0

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
