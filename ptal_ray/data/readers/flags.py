"""The flags of `import` and `validate` that say what a released folder holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ptal_ray.data.importing.groups import GroupSource, group_source
from ptal_ray.data.readers.layouts import LAYOUTS


def add_flags(command: argparse.ArgumentParser) -> None:
    """Adds them."""
    add = command.add_argument
    add("--layout", nargs="+", action=_Layout, default=["plain"], metavar=("LAYOUT", "ROOT"),
        help=f"layout of a released folder, and the folder: {', '.join(LAYOUTS)}; default: plain; "
        "ptal_ray/data/readers/README.md lists the flags of each")  # fmt: skip
    add("--key", default="", help="name of the array in a .npz; default: its only array")
    add("--prefix", default="", help="text before the video id in the names of feature files")
    add("--suffix", default="", help="text after the video id in the names of feature files, with "
        "the extension, e.g. --suffix=-flow.npz")  # fmt: skip
    add("--split", type=int, default=0, help="for mstcn: number of the cross-validation split; "
        "default: 1")  # fmt: skip
    add("--task", choices=("verb", "noun"), default="", help="for epic; default: verb")
    add("--background", default="", metavar="NAME,..",
        help="for mstcn: frame labels that are background")  # fmt: skip
    add_exclude(command)
    add("--drop-label", action="append", default=[], metavar="NAME",
        help="a class to leave out, with its instances and points, e.g. Ambiguous")  # fmt: skip
    add("--group", type=_group, metavar="FILE.csv|REGEX", help="groups of videos, e.g. all videos "
        "of one person: a CSV with columns video,group, or a regular expression on the ids with "
        "one capture group; the race puts the videos of a group in the same fold")  # fmt: skip
    add(
        "--normalize",
        choices=("none", "train"),
        help="train: z-scores by mean and standard "
        "deviation of the training split; default: none, but train for --layout signals",
    )


def add_exclude(command: argparse.ArgumentParser) -> None:
    """Adds --exclude."""
    command.add_argument(
        "--exclude", action="append", default=[], metavar="NAME|FILE|ID,..",
        help="videos to leave out: those of a protocol (thumos14-210: the three THUMOS14 videos "
        "that most papers leave out), ids, or a file with one id per line")  # fmt: skip


def _group(text: str) -> GroupSource:
    try:
        return group_source(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _Layout(argparse.Action):
    """A layout, and the folder behind it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = list(values or ())
        if words[0] not in LAYOUTS:
            parser.error(f"--layout {words[0]}: choose from {', '.join(LAYOUTS)}")
        if len(words) > 2:
            parser.error(f"--layout {' '.join(words)}: give a layout and one folder")
        namespace.layout = words
