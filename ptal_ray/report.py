"""Reports of studies, and what MLflow still lacks of them.

    python -m ptal_ray.report studies/apn_watch-20261121-120000
    python -m ptal_ray.report studies/*           (and a table that compares them)
    python -m ptal_ray.report --log studies/X     (and sends MLflow the events it does not have)

Writes reports/<study>_<hardware>_<date>/ with REPORT.md, result.json, trials.parquet, best.yaml
(which `python -m ptal_ray.train` reads), space.yaml (which `python -m ptal_ray.search` reads) and
pictures; for several studies also reports/leaderboard.md and leaderboard.json.
"""

from __future__ import annotations

from ptal_ray.process.console import exit_code, run_main

# isort: split
import argparse
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    parser.add_argument("--log", action="store_true", help="send MLflow what it does not have")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.reporting.command import report

    return exit_code(lambda: report(args.studies, args.reports, log=args.log, as_json=args.json))


if __name__ == "__main__":
    run_main(main)
