"""The flags of `python -m ptal_ray.benchmarks`, and the targets of `python -m ptal_ray.profile`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptal_ray.process.cpus import usable_cpus

# What `python -m ptal_ray.profile` measures besides methods.
OTHERS = ("evaluation", "suppression", "tracking", "driver", "logging")


def add_record(command: argparse.ArgumentParser) -> None:
    """Add the flags of `record`."""
    add = command.add_argument
    add("space", metavar="SPACE", help="name or file of a search space")
    add("--configurations", type=AtLeast(2), default=48, metavar="N",
        help="number 0 is the defaults, the others are random (default: 48)")  # fmt: skip
    add("--folds", type=AtLeast(2), default=4, metavar="K", help="folds of the training videos "
        "(default: 4)")  # fmt: skip
    add("--seeds", type=AtLeast(1), default=3, metavar="N", help="seeds of each configuration "
        "on each fold, and on the whole training split (default: 3)")  # fmt: skip
    add("--dataset", metavar="NAME", help="use this dataset instead of the one in the space")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="override a value of the space")  # fmt: skip
    add("--workers", type=AtLeast(1), default=usable_cpus(), metavar="N",
        help="processes, of one thread each (default: the number of cores)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the table")


def add_replay(command: argparse.ArgumentParser) -> None:
    """Add the flags of `replay`."""
    add = command.add_argument
    add("tables", nargs="+", type=Path, metavar="DIR", help="folders written by `record`")
    add("--policies", type=_policies, default="all", metavar="all|NAME,..",
        help="race, which also gives the row race_without_gate, simple, random, ... "
        "(default: all)")  # fmt: skip
    add("--searches", type=AtLeast(1), default=300, metavar="N", help="searches of each "
        "policy on each table (default: 300)")  # fmt: skip
    add("--budget", type=AtLeast(4), default=20, metavar="N", help="budget of a search, "
        "in full runs (default: 20)")  # fmt: skip
    add("--workers", type=AtLeast(1), default=usable_cpus(), metavar="N",
        help="processes (default: the number of cores)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")


def add_points(command: argparse.ArgumentParser) -> None:
    """Add the flags of `points`."""
    add = command.add_argument
    add("spaces", nargs="+", metavar="SPACE", help="search spaces of point-supervised methods; "
        "their budget gives the steps")  # fmt: skip
    add("--dataset", action="append", default=[], metavar="NAME",
        help="an imported dataset; repeatable (default: those of the spaces)")  # fmt: skip
    add("--configurations", type=int, default=16, metavar="N",
        help="configurations of each space (default: 16)")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of configurations and trainings (default: 0)")
    add("--workers", type=int, default=usable_cpus(), metavar="N",
        help="processes, of one thread each (default: the number of cores)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the report")


def _policies(text: str) -> list[str]:
    from ptal_ray.benchmarks.policies import POLICIES, ROWS  # slow to import

    names = list(POLICIES) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in POLICIES and name not in ROWS]:
        known = ", ".join((*POLICIES, *ROWS))
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not a policy; give all, or names of {known}"
        )
    return list(dict.fromkeys(ROWS.get(name, name) for name in names))


class AtLeast:
    """The type of an integer of at least `least`."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        value = int(text) if text.isdecimal() else -1
        if value < self.least:
            raise argparse.ArgumentTypeError(
                f"{text}: must be a whole number of at least {self.least}"
            )
        return value
