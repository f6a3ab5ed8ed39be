"""The flags of `import` and `validate` that say what a released folder holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ptal_ray.data.readers.layouts import LAYOUTS


def add_flags(command: argparse.ArgumentParser) -> None:
    """Adds them."""
    add = command.add_argument
    add("--layout", nargs="+", action=_Layout, default=["plain"], metavar=("LAYOUT", "ROOT"),
        help=f"of a released folder: {', '.join(LAYOUTS)}; default: plain; "
        "ptal_ray/data/readers/README.md has the flags of each")  # fmt: skip
    add("--key", default="", help="of the array in a .npz; default: its only one")
    add("--prefix", default="", help="before the video id in the names of feature files")
    add("--suffix", default="", help="behind it, with the extension, e.g. --suffix=-flow.npz")
    add("--split", type=int, default=0, help="number of the cross-validation split, of mstcn; "
        "default: 1")  # fmt: skip
    add("--task", choices=("verb", "noun"), default="", help="of epic; default: verb")
    add("--background", default="", metavar="NAME,..", help="frame labels that are no action")
    add("--exclude", action="append", default=[], metavar="FILE|ID,..",
        help="videos to leave out: ids, or a file of one a line")  # fmt: skip
    add("--drop-label", action="append", default=[], metavar="NAME",
        help="a class to leave out, with its instances and points, e.g. Ambiguous")  # fmt: skip
    add("--normalize", choices=("none", "train"), help="train: z-scores by mean and spread of the "
        "training split; default: none, but train for --layout signals")  # fmt: skip


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
            parser.error(f"--layout {' '.join(words)}: a layout and one folder are needed")
        namespace.layout = words
