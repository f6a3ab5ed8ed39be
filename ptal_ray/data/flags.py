"""The flags of `python -m ptal_ray.data`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptal_ray.data.choices import AUTO, DTYPES, KINDS
from ptal_ray.data.readers.flags import add_exclude, add_flags
from ptal_ray.process.console import Parser, program
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.video.flags import count, positive

if TYPE_CHECKING:
    from ptal_ray.data.rates import RateSource


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags of a command, which is `command`; those that contradict end the process."""
    flags = _parser().parse_args(arguments)
    if flags.check is not None:
        flags.check(flags)
    return flags


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("data"),
        description="Imports, validates, shows and simulates datasets.",
    )
    parser.set_defaults(check=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "import", help="write a store of features, annotations and points"
    )
    _source_flags(command)
    _out_flags(command)
    command.set_defaults(check=partial(_check, command, True))
    command = commands.add_parser(
        "validate", help="list all problems of an import, or verify the hash of a store"
    )
    _source_flags(command)
    command.set_defaults(check=partial(_check, command, False))
    command = commands.add_parser(
        "points", help="write point labels as CSV: those of a store, or simulated ones"
    )
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument(
        "--kind", choices=KINDS, help="simulate points (default: those of the store)"
    )
    add_noise_flags(command)
    command.add_argument("--seed", type=_seed, default=0, help="seed of --kind")
    command.add_argument("--out", type=Path, required=True, metavar="CSV")
    command.add_argument("--replace", action="store_true", help="replace an existing CSV of points")
    command = commands.add_parser("info", help="show the contents of a store")
    command.add_argument("name", help="dataset name or path of a store")
    command.add_argument(
        "--json", action="store_true", help="print one JSON object, with statistics"
    )
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="plot durations "
                         "and counts")  # fmt: skip
    command = commands.add_parser("simulate", help="write a store of simulated features")
    command.add_argument("name", help="dataset name, e.g. thumos14")
    command.add_argument("--annotations", type=Path, required=True, metavar="GT.json")
    command.add_argument("--points", type=Path, metavar="CSV", help="default: simulated")
    _point_flags(command, "json, else derived from stop_frame of --points")
    command.add_argument("--dim", type=count, default=128)
    command.add_argument("--difficulty", choices=("easy", "standard", "hard"), default="standard")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--limit", type=count, metavar="VIDEOS", help="approximate number of videos"
    )
    command.add_argument("--stride-s", type=positive, help="default: that of the dataset")
    command.add_argument("--workers", type=count, default=usable_cpus())
    add_exclude(command)
    _list_flags(command)
    _out_flags(command)
    command.set_defaults(check=partial(_check, command, False))
    return parser


def _source_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("name", help="dataset name")
    add_flags(command)
    add(
        "--features",
        "--signals",
        type=Path,
        metavar="DIR",
        help="folder of <id>.npy, each of shape (T, D)",
    )
    add("--annotations", type=Path, metavar="GT.json", help="segments in the ActivityNet layout")
    add("--fps", "--rate", type=rates, metavar="json|CSV|NUMBER", help="frame rate, "
        "the unit of --stride and --window: json: the rate of each video in GT.json; CSV: "
        "columns video,fps and, if they differ, stride,window; NUMBER: one for all")  # fmt: skip
    add(
        "--stride",
        type=positive,
        default=0.0,
        metavar="FRAMES",
        help="frames, or samples of recordings, between snippets, unless --fps gives it",
    )
    add(
        "--window",
        type=positive,
        default=0.0,
        metavar="FRAMES",
        help="frames, or samples of recordings, per snippet (default for videos: the stride)",
    )
    add("--allow-length", action="store_true",
        help="accept features that are shorter or longer than their video")  # fmt: skip
    add("--points", type=Path, metavar="CSV", help="columns video_id, class, and time_s in seconds "
        "or point in frames")  # fmt: skip
    _point_flags(command)
    add(
        "--simulate-points",
        "--point-kind",
        choices=KINDS,
        default="",
        help="simulate points, instead of --points",
    )
    add_noise_flags(command)
    add("--seed", type=_seed, default=0, help="seed of --simulate-points")
    _list_flags(command)
    add("--drop-invalid", action="store_true", help="drop instances with end <= start "
        "or start < 0")  # fmt: skip
    add("--transpose", action="store_true", help="feature files have shape (D, T), "
        "or (T, D) with --layout mstcn")  # fmt: skip
    add("--dtype", choices=DTYPES, default=AUTO, help="dtype of stored features; auto: float16, or "
        "float32 if its rounding error is too large")  # fmt: skip
    add("--workers", type=count, default=usable_cpus(), metavar="N",
        help="threads that read features; the store is the same for any N (default: all CPUs)"
        )  # fmt: skip
    add("--note", default="", help="one line on the data, shown with every result")


def add_noise_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of `point_noise.given_noise`."""
    for name, metavar, what in (
        ("jitter", "SECONDS", "standard deviation of a shift of each simulated point"),
        ("dropout", "SHARE", "of the simulated points, left out"),
        ("label-noise", "SHARE", "of the simulated points, given another class"),
    ):
        command.add_argument(
            f"--point-{name}", type=float, default=0.0, metavar=metavar, help=f"{what}; default: 0"
        )


def _point_flags(command: argparse.ArgumentParser, default: str = "json") -> None:
    add = command.add_argument
    add("--point-fps", type=rates, metavar="json|CSV|NUMBER",
        help=f"frame rate of --points; a CSV has columns video,fps (default: {default})"
        )  # fmt: skip
    add("--allow-points", action="store_true",
        help="accept points of which many lie in no instance of their class")  # fmt: skip


def _list_flags(command: argparse.ArgumentParser) -> None:
    help = "file of {} video ids, one per line, in place of the subsets in GT.json"
    for subset in ("train", "test"):
        command.add_argument(
            f"--{subset}-list", type=Path, metavar="FILE", help=help.format(subset)
        )


def _out_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--replace", action="store_true", help="replace an existing store")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the store (default: NAME in $PTAL_DATA)"
    )


def _check(command: argparse.ArgumentParser, needs_source: bool, flags: argparse.Namespace) -> None:
    """Ends the command where flags that depend on each other contradict.

    Args:
        command: whose flags they are.
        needs_source: whether it always reads features and annotations.
        flags: as they were given.
    """
    if (flags.train_list is None) != (flags.test_list is None):
        command.error("--train-list and --test-list must be given together")
    if getattr(flags, "layout", None) == ["plain"] and (needs_source or flags.features):
        missing = [n for n in ("features", "annotations", "fps") if not getattr(flags, n)]
        missing += ["stride"] if not flags.stride and isinstance(flags.fps, float) else []
        if missing:
            command.error(f"--{missing[0]} is needed")
        if flags.points is None and not flags.simulate_points:
            command.error("pass --points CSV or --simulate-points KIND")
    if getattr(flags, "simulate_points", "") and flags.points:
        command.error("--points CSV and --simulate-points KIND cannot be given together")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of 0 or more")
    return int(text)


def rates(text: str) -> RateSource:
    """The value of --fps: json, a positive number, or a CSV.

    Raises:
        ArgumentTypeError: it is none of them.
    """
    from ptal_ray.data.rates import rate_source  # numpy, which --help does without

    try:
        return rate_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
