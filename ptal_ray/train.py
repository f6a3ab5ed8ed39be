"""Trains one configuration in this process, without Ray.

    python -m ptal_ray.train apn_watch --set train.lr=3e-4
    python -m ptal_ray.train reports/STUDY/best.yaml --test --out runs/best
    python -m ptal_ray.train reports/STUDY/best.yaml --ensemble --test --out runs/ensemble

Trains with the values that a search space fixes and the method's defaults for the others, tunes
the searched decode parameters on the validation fold, and prints one line per report. With --test
it trains on the whole training split, keeps the decode parameters fixed and evaluates the test
split at the end. With --ensemble it trains each member that the best.yaml of a report names under
`ensemble:`, averages their scores and decodes them once.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.data.choices import POINTS
from ptal_ray.process.cpus import usable_cpus


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("train"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "space", help="name or file of a search space, or the best.yaml of a report"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="use this dataset instead of the one in the space"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="override a value of the space")  # fmt: skip
    parser.add_argument("--points", metavar="KIND[:NAME=VALUE,..]", help=POINTS)
    parser.add_argument("--seed", type=int, default=0,
                        help="seed of weights, order, crops and losses (default: 0)")  # fmt: skip
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument(
        "--test",
        action="store_true",
        help="train on the whole training split, evaluate the test split",
    )
    whole.add_argument(
        "--whole",
        action="store_true",
        help="train on the whole training split, evaluate nothing: for data without a test split",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="train the members that the file names under ensemble:, in folders of --out, and "
        "average their scores",
    )
    parser.add_argument("--reports", type=int, metavar="N", help="number of reports, evenly spaced")
    parser.add_argument(
        "--label-quality",
        action="store_true",
        help="also print the mAP of the pseudo-labels against the training annotations",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:K (default: cuda if available)")
    parser.add_argument(
        "--threads",
        type=int,
        default=usable_cpus(),
        help="CPU threads (default: one per CPU); give commands that run at the same time one "
        "thread each, because sharing the CPUs makes every step several times slower",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/train"),
                        help="folder of the results (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from checkpoint.pt in --out; with --ensemble, from that of each member",
    )
    parser.add_argument("--json", action="store_true", help="print the last report as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.reporting.run_progress import following
    from ptal_ray.study.ensemble_run import run_ensemble
    from ptal_ray.study.events import dumps
    from ptal_ray.study.footprint import size
    from ptal_ray.study.run_folder import CHECKPOINT, MODEL
    from ptal_ray.study.single_run import run

    def kept() -> str:
        """What the folder holds, for the last line."""
        if args.ensemble:
            return "report, and checkpoints and models of the members"
        return f"checkpoint, report and model ({size((args.out / MODEL).stat().st_size)})"

    def work() -> int:
        """Train and print what was written."""
        train = run_ensemble if args.ensemble else run
        report = train(args, lambda *at: following(*at, to=sys.stderr))
        if args.json:
            print(dumps(dataclasses.asdict(report)))
        else:
            print(f"detections, {kept()}: {args.out}")
        return 0

    def advice() -> str:
        """How to continue after an interruption; "" before the first checkpoint."""
        begun = any(args.out.glob(f"member*/{CHECKPOINT}" if args.ensemble else CHECKPOINT))
        return f"--out {shlex.quote(str(args.out))} --resume continues the run" if begun else ""

    return exit_code(work, advice)


if __name__ == "__main__":
    run_main(main)
