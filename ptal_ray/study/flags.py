"""The flags of `python -m ptal_ray.search`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.study.choices import DEFAULT_STORAGE, POLICIES, SCHEDULERS, SEARCHERS


def seconds(text: str) -> float:
    """Seconds of "90", "300s", "10m" or "1.5h".

    Raises:
        argparse.ArgumentTypeError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    value = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 300s, 10m or 1.5h")
    return value


def parse(argv: Sequence[str] | None, description: str = "") -> argparse.Namespace:
    """The flags, below a `description` of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.search",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, 1 storage full or gone, 2 configuration, 3 data, "
        "4 no trial finished, 130 interrupted",
    )
    add = parser.add_argument
    add("space", nargs="?", metavar="NAME_OR_YAML", help="a search space: its name or its file")
    add(
        "--num-trials",
        type=int,
        metavar="N",
        help="full trials to train in all; "
        "one that ends early counts its share (default: the space's budget)",
    )
    add("--time-budget", type=seconds, metavar="TIME", help="for the search alone: 300s, 10m, 2h")
    add("--gpu-hours", type=float, metavar="H", help="for the search alone, over all GPUs")
    add(
        "--policy",
        choices=POLICIES,
        help="how configurations are compared: race over folds and "
        "seeds against the defaults, or simple: on one fold (default: the space's policy)",
    )
    add("--searcher", choices=SEARCHERS, help="what to try next (default: tpe)")
    add(
        "--scheduler",
        choices=SCHEDULERS,
        help="asha: stop bad trials early, in a race only "
        "where early objectives were seen to tell; none: never (default: asha)",
    )
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the space")
    add("--dataset", metavar="NAME", help="another imported dataset than the space names")
    add("--max-concurrent", type=int, metavar="N", help="trials at a time (default: what fits)")
    add("--autoscale", action="store_true", default=None, help="the cluster starts nodes until "
        "--max-concurrent trials fit")  # fmt: skip
    add("--seed", type=int, help="of the searcher and of every trial (default: 0)")
    add("--resume", nargs="?", const="", metavar="STUDY", help="continue a study: its directory "
        "or name; alone, or with a YAML, the newest one of that space")  # fmt: skip
    add("--storage", default=DEFAULT_STORAGE, metavar="DIR", help="where studies lie: a folder or "
        "s3://bucket/prefix")  # fmt: skip
    add("--keep-checkpoints", type=int, metavar="K", help="of the best complete trials (default: "
        "final.top of the space)")  # fmt: skip
    add("--reports", type=Path, default=Path("reports"), metavar="DIR", help="where reports go")
    add("--address", help="of a running Ray cluster (default: RAY_ADDRESS; local: none)")
    add("--dry-run", action="store_true", help="say what would happen, and do nothing")
    add("--json", action="store_true", help="print one JSON object, all else to stderr")
    add("--quiet", action="store_true", help="print the summary alone")
    add("-v", "--verbose", action="store_true", help="show what Ray and the trials write")
    args = parser.parse_args(argv)
    if args.space is None and args.resume and args.resume.endswith((".yaml", ".yml")):
        args.space, args.resume = args.resume, ""
    if args.space is None and not args.resume:
        parser.error("give the name or the file of a search space, or --resume STUDY")
    return args
