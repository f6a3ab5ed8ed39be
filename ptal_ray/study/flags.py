"""The flags of `python -m ptal_ray.search`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ptal_ray.data.choices import POINTS
from ptal_ray.process.console import Parser, program
from ptal_ray.space.catalog import POLICIES
from ptal_ray.study.choices import DEFAULT_STORAGE, PROTOCOLS, SCHEDULERS, SEARCHERS


def seconds(text: str) -> float:
    """Seconds of "90", "300s", "10m" or "1.5h"; a number alone is one of seconds.

    Raises:
        argparse.ArgumentTypeError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    value = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time above 0 such as 300s, 10m or 1.5h"
        )
    return value


def parse(argv: Sequence[str] | None, description: str = "") -> argparse.Namespace:
    """The parsed flags; `description` is shown by --help."""
    parser = Parser(
        prog=program("search"),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, 1 storage full or unreachable, 2 configuration, 3 data, "
        "4 no trial finished, 130 interrupted",
    )
    _add_what(parser.add_argument)
    _add_how(parser.add_argument)
    args = parser.parse_args(argv)
    if args.space is None and args.resume and args.resume.endswith((".yaml", ".yml")):
        args.space, args.resume = args.resume, ""
    if args.space is None and not args.resume:
        parser.error("a search space (name or file) or --resume STUDY is required")
    return args


def _add_what(add: Callable[..., Any]) -> None:
    """Add the flags for what is searched."""
    add("space", nargs="?", metavar="NAME_OR_YAML", help="name or file of a search space")
    add(
        "--num-trials",
        type=int,
        metavar="N",
        help="total number of full trials; "
        "a trial stopped early counts in part (default: the budget of the space)",
    )
    add(
        "--time-budget",
        type=seconds,
        metavar="TIME",
        help="time limit of the search, without final runs: 300s, 10m, 2h",
    )
    add("--gpu-hours", type=float, metavar="H", help="limit of the search in GPU hours, without "
        "final runs: once they are used, no trial starts")  # fmt: skip
    add(
        "--policy",
        choices=POLICIES,
        help="how configurations are compared: race over folds and "
        "seeds against the defaults, or simple: on one fold (default: the space's policy)",
    )
    add("--searcher", choices=SEARCHERS, help="how configurations are suggested (default: tpe)")
    add(
        "--scheduler",
        choices=SCHEDULERS,
        help="asha: stop bad trials early, in a race only "
        "if early objectives predict late ones; none: never (default: asha)",
    )
    add("--protocol", choices=PROTOCOLS, help="paper-compat: select on the test split, as papers "
        "do; requires selection: test in the space (default: sealed)")  # fmt: skip
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a value of the space",
    )
    add("--dataset", metavar="NAME", help="use this dataset instead of the one in the space")
    add("--points", metavar="KIND[:NAME=VALUE,..]", help=POINTS)


def _add_how(add: Callable[..., Any]) -> None:
    """Add the flags for where it runs, what it keeps and what it prints."""
    add(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="concurrent trials (default: as many as fit)",
    )
    add("--autoscale", action="store_true", default=None, help="let the cluster start nodes until "
        "--max-concurrent trials fit")  # fmt: skip
    add("--seed", type=int, help="seed from which the seeds of the searcher and of all runs "
        "are derived (default: 0)")  # fmt: skip
    add("--warm-start", action="extend", nargs="+", default=[], metavar="STUDY", help="earlier "
        "studies of the method, on any data: their best configurations are tried first, and the "
        "searcher learns from all of them")  # fmt: skip
    add("--resume", nargs="?", const="", metavar="STUDY", help="continue a study, given its "
        "directory or name; without STUDY, the newest study of the space")  # fmt: skip
    add("--storage", default=DEFAULT_STORAGE, metavar="DIR", help="folder of studies, or "
        "s3://bucket/prefix (default: %(default)s)")  # fmt: skip
    add("--keep-checkpoints", type=int, metavar="K", help="keep checkpoints of the K best complete "
        "trials (default: final.top of the space)")  # fmt: skip
    add("--out", type=Path, default=Path("reports"), metavar="DIR",
        help="folder of reports (default: %(default)s)")  # fmt: skip
    add("--reports", dest="out", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add("--address", help="address of a Ray cluster (default: RAY_ADDRESS; local: no cluster)")
    add("--dry-run", action="store_true", help="print the plan and exit")
    add("--json", action="store_true", help="print one JSON object; everything else goes to stderr")
    add("--quiet", action="store_true", help="print only the summary")
    add("-v", "--verbose", action="store_true", help="show the output of Ray and of the trials")
