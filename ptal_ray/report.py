"""Writes reports of studies, and sends MLflow what it lacks.

    python -m ptal_ray.report studies/apn_watch-20261121-120000
    python -m ptal_ray.report studies/*           (and a table that compares them)
    python -m ptal_ray.report studies/* --html leaderboard.html        (methods against each other)
    python -m ptal_ray.report --log studies/X     (and sends MLflow the events it does not have)

Writes reports/<study>_<hardware>_<date>/ with REPORT.md, report.html, result.json, trials.parquet,
best.yaml (which `python -m ptal_ray.train` reads), space.yaml (which `python -m ptal_ray.search`
reads) and pictures; for several studies also reports/leaderboard.md and leaderboard.json.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("report"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR",
                        help="folder of reports (default: %(default)s)")  # fmt: skip
    parser.add_argument("--reports", dest="out", type=Path, default=argparse.SUPPRESS,
                        help=argparse.SUPPRESS)  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="compare the methods on one page")
    parser.add_argument(
        "--log", action="store_true", help="log the events and reports that are missing in MLflow"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.reporting.command import report

    return exit_code(
        lambda: report(args.studies, args.out, html=args.html, log=args.log, as_json=args.json)
    )


if __name__ == "__main__":
    run_main(main)
