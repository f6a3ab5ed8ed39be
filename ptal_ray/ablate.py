"""Variants of one method side by side: the same seeds, videos and budget for each.

    python -m ptal_ray.ablate lacp_watch --seeds 3 --out reports/lacp_ablation_watch \\
        --variant 'base: train.score_weight=0 train.feature_weight=0' \\
        --variant '+ score contrast: train.feature_weight=0' --variant '+ feature contrast:'
    python -m ptal_ray.ablate lacp_watch --variant 'base:' --points uniform --points human \\
        --points human:jitter=0.5,dropout=0.1 --out reports/points_watch

A variant is a name and settings that override the search space. Each run trains with the values
that the space and the settings fix, and with the method's defaults for the others, on the training
split without one fold. It is evaluated on that fold; the decode parameters are searched the same
way for all variants (cross-fitted if the space says so). Seed k uses fold k. The test split is
never read. The report is written after each variant, so a stopped ablation keeps the finished ones.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.data.choices import POINTS
from ptal_ray.process.cpus import usable_cpus


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("ablate"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("space", help="name or file of a search space")
    parser.add_argument("--variant", action="append", required=True, metavar="'NAME: SETTINGS'",
                        help="a name and the values that it overrides, "
                        "section.key=value ...; none for the space itself")  # fmt: skip
    parser.add_argument(
        "--dataset", metavar="NAME", help="use this dataset instead of the one in the space"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="override a value of the space, in all variants")  # fmt: skip
    parser.add_argument(
        "--points",
        action="append",
        default=[],
        metavar="KIND[:NAME=VALUE,..]",
        help=f"{POINTS}; given several times, all variants run with each",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=usable_cpus(), help="concurrent runs (default: all CPUs)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    args.argv = list(argv) if argv is not None else sys.argv[1:]
    from ptal_ray.study.ablation import ablate

    def work() -> int:
        """Run the ablation and print its table."""
        print(ablate(args))
        return 0

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
