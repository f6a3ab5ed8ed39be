"""Searches, trains and compares methods of weakly supervised temporal action localization.

    ptal                     what is here: methods, search spaces, datasets, studies, next command
    ptal search apn_watch    the same as python -m ptal_ray.search apn_watch

commands:
  list       what is here, as text or with --json
  search     finds the hyperparameters of a method on a dataset, and tests what it found
  train      trains one configuration, without Ray
  ablate     compares variants of a method over the same seeds
  evaluate   computes the mAP of a file of detections
  decode     tunes the decode parameters of a finished study again, without training
  predict    finds actions in new videos with a trained model
  extract    makes features of videos
  report     writes reports of studies, and a table that compares them
  profile    measures the speed of a method on this machine
  data       imports, validates, shows and simulates datasets
  benchmarks records searches, replays policies on them, and measures a GPU
`ptal COMMAND --help` shows the flags of a command.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, run_main

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ptal_ray.study.choices import DEFAULT_STORAGE

COMMANDS = {
    "search": "ptal_ray.search",
    "train": "ptal_ray.train",
    "ablate": "ptal_ray.ablate",
    "decode": "ptal_ray.decode",
    "evaluate": "ptal_ray.evaluate",
    "predict": "ptal_ray.predict",
    "extract": "ptal_ray.extract",
    "report": "ptal_ray.report",
    "profile": "ptal_ray.profile",
    "data": "ptal_ray.data.__main__",
    "benchmarks": "ptal_ray.benchmarks.__main__",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names, or shows what is here; its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]]).main(words[1:]))
    args = _parser().parse_args(words)
    from ptal_ray.reporting.overview import overview, show

    def work() -> int:
        """Print the overview."""
        found = overview(args.storage)
        print(json.dumps(found) if args.json else show(found))
        return 0

    return exit_code(work)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ptal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command", nargs="?", choices=["list", *COMMANDS], default="list", metavar="COMMAND"
    )
    parser.add_argument("--storage", type=Path, default=Path(DEFAULT_STORAGE), metavar="DIR",
                        help="for list: folder of the studies (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for list: print one JSON object")
    return parser


def script() -> NoReturn:
    """The console script `ptal`."""
    run_main(main)


if __name__ == "__main__":
    script()
