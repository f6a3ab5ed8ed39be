"""Variants of one method side by side: the same seeds, videos and budget for each.

    python -m ptal_ray.ablate lacp_watch --seeds 3 --out reports/lacp_ablation_watch \\
        --variant 'base: train.score_weight=0 train.feature_weight=0' \\
        --variant '+ score contrast: train.feature_weight=0' --variant '+ feature contrast:'

Each variant is a name and settings on top of the search space. Every run trains with what these
fix and the method's defaults for the rest, on the training split without a fold, and is judged on
that fold with the decode parameters searched alike (cross-fitted where the space says so). Seed k
takes fold k, for every variant. The test split is never read. The report is
written after each variant, so an ablation that is stopped keeps those that are done.
"""

from __future__ import annotations

from ptal_ray.process.console import exit_code, run_main

# isort: split
import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", help="a search space (name or YAML)")
    parser.add_argument("--variant", action="append", required=True, metavar="'NAME: SETTINGS'")
    parser.add_argument("--dataset", help="another imported dataset than the YAML names")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, required=True, help="where the report goes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    args.argv = list(argv) if argv is not None else sys.argv[1:]
    from ptal_ray.study.ablation import ablate

    def work() -> int:
        print(ablate(args))
        return 0

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
