"""Reports of studies, and what MLflow still lacks of them.

    python -m ptal_ray.report studies/apn_watch-20261121-120000
    python -m ptal_ray.report studies/*           (and a table that compares them)
    python -m ptal_ray.report --log studies/X     (and sends MLflow the events it does not have)

Writes reports/<study>_<hardware>_<date>/ with REPORT.md, result.json, trials.parquet, best.yaml
(which `python -m ptal_ray.train` reads), space.yaml (which `python -m ptal_ray.search` reads) and
pictures; for several studies also reports/leaderboard.md and leaderboard.json.
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.process.console import run_main
from ptal_ray.reporting.leaderboard import FILES as LEADERBOARD_FILES
from ptal_ray.reporting.leaderboard import leaderboard, write_leaderboard
from ptal_ray.reporting.report import send, write_reports
from ptal_ray.reporting.text import leaderboard_text
from ptal_ray.storage.ownership import check_files
from ptal_ray.study.view import dumps


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    parser.add_argument("--log", action="store_true", help="send MLflow what it does not have")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    args = parser.parse_args(argv)
    unlogged: list[str] = []
    try:
        if len(args.studies) > 1:
            check_files("--reports", args.reports, LEADERBOARD_FILES)
        made, failed = write_reports(args.studies, args.reports)
        rows = leaderboard([view for _, view in made.values()])
        if len(rows) > 1:
            write_leaderboard(rows, args.reports)
        if args.log:
            for study, (folder, _) in made.items():
                unlogged += send(study, folder)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    folders = [folder for folder, _ in made.values()]
    if args.json:
        plain = {"reports": [str(f) for f in folders], "leaderboard": rows, "unlogged": unlogged,
                 "errors": [str(error) for error in failed]}  # fmt: skip
        print(dumps(plain))
    elif made:
        print("\n".join(f"report {folder}" for folder in folders))
        print(leaderboard_text(rows))
    for message in unlogged:
        print(message, file=sys.stderr)
    codes = [error.exit_code for error in failed] + [ConfigError.exit_code] * bool(unlogged)
    return codes[0] if codes else 0


if __name__ == "__main__":
    run_main(main)
