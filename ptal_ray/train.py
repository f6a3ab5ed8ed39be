"""One trial here, without Ray.

    python -m ptal_ray.train apn_watch --set train.lr=3e-4
    python -m ptal_ray.train reports/STUDY/best.yaml --test --out runs/best

Trains with the values a search-space YAML fixes and the method's defaults for the rest, tunes the
decode parameters it searches on the validation fold, and prints one line a report. With --test it
trains on the whole training split with the decode parameters as they stand and scores the test
split at the end.
"""

from __future__ import annotations

from ptal_ray.process.console import exit_code, run_main

# isort: split
import argparse
import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", help="a search space (name or YAML), or a report's best.yaml")
    parser.add_argument("--dataset", help="another imported dataset than the YAML names")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true", help="train on all, score the test split")
    parser.add_argument("--reports", type=int, metavar="N", help="report N times, evenly spaced")
    parser.add_argument(
        "--label-quality",
        action="store_true",
        help="also print the mAP of the pseudo-labels against the training annotations",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:K (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="where results go")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--json", action="store_true", help="print the last report as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.study.footprint import size
    from ptal_ray.study.run_folder import MODEL
    from ptal_ray.study.single_run import run

    def work() -> int:
        report = run(args)
        if args.json:
            print(json.dumps(dataclasses.asdict(report)))
        else:
            model = size((args.out / MODEL).stat().st_size)
            print(f"detections, checkpoint, report and model ({model}): {args.out}")
        return 0

    def advice() -> str:
        begun = (args.out / "checkpoint.pt").exists()
        return f"--out {shlex.quote(str(args.out))} --resume continues" if begun else ""

    return exit_code(work, advice)


if __name__ == "__main__":
    run_main(main)
