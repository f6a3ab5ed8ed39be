"""Measurements that many runs together make.

python -m ptal_ray.benchmarks points apn_watch lacp_watch --dataset watch --out reports/points
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible  # before what takes seconds to import

# isort: split
import argparse
import sys
from collections.abc import Sequence

from ptal_ray.benchmarks.points_regret import add_points
from ptal_ray.errors import PtalError
from ptal_ray.process.console import run_main


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 flags, 3 data, 130 interrupted."""
    flags = _parser().parse_args(arguments)
    try:
        return int(flags.run(flags))
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_points(commands.add_parser(
        "points", help="what is lost by selecting by held-out points alone",
    ))  # fmt: skip
    return parser


if __name__ == "__main__":
    run_main(main)
