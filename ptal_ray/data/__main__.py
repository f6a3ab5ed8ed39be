"""python -m ptal_ray.data: import, validate, points, info, simulate."""

from __future__ import annotations

from ptal_ray.process.console import exit_code, run_main

# isort: split
import argparse
import sys
from collections.abc import Sequence

from ptal_ray.data.flags import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 flags, 3 data, 130 interrupted."""
    flags = parse(arguments)
    from ptal_ray.data.commands import COMMANDS

    def work() -> int:
        """Run the command and draw its plot."""
        code = COMMANDS[flags.command](flags)
        if getattr(flags, "plot", None):
            _plot(flags)
        return code

    return exit_code(work)


def _plot(flags: argparse.Namespace) -> None:
    """Draws the durations and counts of a store."""
    from ptal_ray.data.datasets import find
    from ptal_ray.data.types import Segments
    from ptal_ray.reporting.plots import data_statistics, save_as  # matplotlib, for this alone

    store = find(flags.name)
    instances = {
        subset: Segments.concatenate(
            [Segments.empty(), *(store.annotations(id) for id in store.ids(subset))]
        )
        for subset in ("train", "test")
    }
    save_as(data_statistics(instances, store.info.classes, store.info.name), flags.plot)
    print(f"picture: {flags.plot}", file=sys.stderr if flags.json else sys.stdout)


if __name__ == "__main__":
    run_main(main)
