"""The flags of `python -m ptal_ray.data`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptal_ray.data.choices import AUTO, DTYPES, KINDS
from ptal_ray.data.readers.flags import add_flags

if TYPE_CHECKING:
    from ptal_ray.data.rates import RateSource


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of a command, which is `command`; those that contradict end the process."""
    flags = _parser().parse_args(arguments)
    if flags.check is not None:
        flags.check(flags)
    return flags


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ptal_ray.data", description=__doc__)
    parser.set_defaults(check=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("import", help="features, annotations and points into a store")
    _source_flags(command)
    _out_flags(command)
    command.set_defaults(check=partial(_check, command, True))
    command = commands.add_parser(
        "validate", help="list all problems of an import, or verify a store by its hash"
    )
    _source_flags(command)
    command.set_defaults(check=partial(_check, command, False))
    command = commands.add_parser("points", help="write the points of a store, or others, as CSV")
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument("--kind", choices=KINDS, help="simulate them; default: those it has")
    command.add_argument("--seed", type=_seed, default=0, help="of --kind")
    command.add_argument("--out", type=Path, required=True, metavar="CSV")
    command.add_argument("--replace", action="store_true", help="a CSV of points that is there")
    command = commands.add_parser("info", help="what a store holds")
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument("--json", action="store_true", help="statistics too")
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of durations "
                         "and counts")  # fmt: skip
    command = commands.add_parser("simulate", help="a store of simulated features")
    command.add_argument("name", help="dataset name, e.g. thumos14")
    command.add_argument("--annotations", type=Path, required=True, metavar="GT.json")
    command.add_argument("--points", type=Path, metavar="CSV", help="default: simulated")
    _point_flags(command, "json, and for a video without, what stop_frame of --points gives")
    command.add_argument("--dim", type=_positive_int, default=128)
    command.add_argument("--difficulty", choices=("easy", "standard", "hard"), default="standard")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--limit", type=_positive_int, metavar="VIDEOS", help="about so many")
    command.add_argument("--stride-s", type=_positive, help="default: that of the dataset")
    command.add_argument("--workers", type=_positive_int, default=os.cpu_count() or 1)
    _list_flags(command)
    _out_flags(command)
    command.set_defaults(check=partial(_check, command, False))
    return parser


def _source_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("name", help="dataset name")
    add_flags(command)
    add("--features", "--signals", type=Path, metavar="DIR", help="<id>.npy, each (T, D)")
    add("--annotations", type=Path, metavar="GT.json")
    add("--fps", "--rate", type=_rates, metavar="json|CSV|NUMBER", help="that --stride "
        "and --window count: json: the one that GT.json gives each video; CSV: columns video,fps "
        "and, where videos differ in them, stride,window; or one for all")  # fmt: skip
    add("--stride", type=_positive, default=0.0, metavar="FRAMES", help="unless CSV or json has it")
    add("--window", type=_positive, default=0.0, metavar="FRAMES", help="default: the stride")
    add("--allow-length", action="store_true",
        help="go on with features that cover another time than their video lasts")  # fmt: skip
    add("--points", type=Path, metavar="CSV")
    _point_flags(command)
    add("--simulate-points", "--point-kind", choices=KINDS, default="", help="in place of --points")
    add("--seed", type=_seed, default=0, help="of --simulate-points")
    _list_flags(command)
    add("--drop-invalid", action="store_true", help="leave out instances with end <= start "
        "or start < 0")  # fmt: skip
    add("--transpose", action="store_true", help="the feature files hold (D, T); "
        "with --layout mstcn (T, D)")  # fmt: skip
    add("--dtype", choices=DTYPES, default=AUTO, help="of the store; auto: float16 where it loses "
        "nothing that matters")  # fmt: skip
    add("--note", default="", help="one line on the data, shown with every result")


def _point_flags(command: argparse.ArgumentParser, default: str = "json") -> None:
    add = command.add_argument
    add("--point-fps", type=_rates, metavar="json|CSV|NUMBER",
        help=f"of the frame numbers in --points; a CSV has columns video,fps; default: {default}"
        )  # fmt: skip
    add("--allow-points", action="store_true",
        help="go on with points of which many lie in no instance of their class")  # fmt: skip


def _list_flags(command: argparse.ArgumentParser) -> None:
    help = "ids of the {} videos, one a line, in place of the subsets in GT.json"
    for subset in ("train", "test"):
        command.add_argument(
            f"--{subset}-list", type=Path, metavar="FILE", help=help.format(subset)
        )


def _out_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--replace", action="store_true", help="an existing store")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: the name in the cache")


def _check(command: argparse.ArgumentParser, needs_source: bool, flags: argparse.Namespace) -> None:
    """Ends the command where flags that depend on each other contradict.

    Args:
        command: whose flags they are.
        needs_source: whether it always reads features and annotations.
        flags: as they were given.
    """
    if (flags.train_list is None) != (flags.test_list is None):
        command.error("--train-list and --test-list go together")
    if getattr(flags, "layout", None) == ["plain"] and (needs_source or flags.features):
        missing = [n for n in ("features", "annotations", "fps") if not getattr(flags, n)]
        missing += ["stride"] if not flags.stride and isinstance(flags.fps, float) else []
        if missing:
            command.error(f"--{missing[0]} is needed")
        if flags.points is None and not flags.simulate_points:
            command.error("one of --points CSV and --simulate-points KIND is needed")
    if getattr(flags, "simulate_points", "") and flags.points:
        command.error("one of --points CSV and --simulate-points KIND is needed, not both")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a positive number is needed")
    return value


def _seed(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on is needed")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on is needed")
    return value


def _rates(text: str) -> RateSource:
    from ptal_ray.data.rates import rate_source  # numpy, which --help does without

    try:
        return rate_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
