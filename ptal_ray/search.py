"""Searches the hyperparameters of a method on a dataset, and benchmarks what it found.

    python -m ptal_ray.search apn_watch
    python -m ptal_ray.search apn_gtea --num-trials 50 --time-budget 30m
    python -m ptal_ray.search --resume studies/apn_gtea-20260801-120000

Trials run under Ray. The best configuration and the defaults are then trained on the whole
training split with several seeds, and the test split is read once. Everything is written to a study
directory, to MLflow and to a report. Ctrl-C stops cleanly; a second Ctrl-C stops immediately.
"""

from __future__ import annotations

from ptal_ray.process.console import exit_code, run_main

# isort: split
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.errors import PtalError, full_storage_named
from ptal_ray.process.interruption import INTERRUPTED
from ptal_ray.study.flags import parse


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parse(argv, __doc__)
    from ptal_ray.backends.search import search
    from ptal_ray.study.events import dumps

    def say(text: str) -> None:
        """Print a line, to stderr beside JSON."""
        print(text, file=sys.stderr if args.json else sys.stdout)

    def work() -> int:
        """Search and print the outcome."""
        try:
            with full_storage_named(Path(args.storage)):
                outcome, code = search(args, say), 0
        except PtalError as error:
            print(f"error: {error}", file=sys.stderr)
            outcome, code = {"error": str(error), "exit_code": error.exit_code}, error.exit_code
        except KeyboardInterrupt as error:
            command = str(error)
            what = f"to continue, run\n  {command}" if command else "nothing was started"
            print(f"interrupted; {what}", file=sys.stderr)
            outcome, code = {"state": "interrupted", "resume": command}, INTERRUPTED
        if args.json:
            print(dumps(outcome))
        return code

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
