"""Measurements that many runs together make: recorded searches, and policies replayed on them.

python -m ptal_ray.benchmarks record apn_watch --out reports/search_tables/apn_watch
python -m ptal_ray.benchmarks replay reports/search_tables/*/ --policies all --searches 300
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible  # before what takes seconds to import

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.benchmarks.policies import POLICIES
from ptal_ray.benchmarks.recording import record
from ptal_ray.benchmarks.replay import replay
from ptal_ray.benchmarks.replay_text import lines
from ptal_ray.benchmarks.table_facts import fact_lines, facts
from ptal_ray.errors import PtalError
from ptal_ray.process.console import run_main
from ptal_ray.space.space import load_space


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 2 flags, 3 data, 130 interrupted."""
    flags = _parser().parse_args(arguments)
    try:
        return int(flags.run(flags))
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _record(flags: argparse.Namespace) -> int:
    record(
        load_space(flags.space, flags.set, flags.dataset), flags.out, folds=flags.folds,
        configurations=flags.configurations, seeds=flags.seeds, workers=flags.workers,
        progress=_progress,
    )  # fmt: skip
    print(f"{flags.out}: recorded")
    return 0


def _replay(flags: argparse.Namespace) -> int:
    found = replay(
        flags.tables, flags.policies, searches=flags.searches, budget=flags.budget,
        workers=flags.workers, progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(json.dumps(found) if flags.json else "\n".join(lines(found)))
    return 0


def _show(flags: argparse.Namespace) -> int:
    found = {str(folder): facts(folder) for folder in flags.tables}
    text = (line for name, own in found.items() for line in fact_lines(name, own))
    print(json.dumps(found) if flags.json else "\n".join(text))
    return 0


def _progress(done: int, total: int) -> None:
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    if end == "\r" or done % 20 == 0 or done == total:
        print(f"{done}/{total} trainings", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_record(commands.add_parser(
        "record", help="train many configurations on every fold with every seed, for replay; a "
        "recording that was interrupted goes on",
    ))  # fmt: skip
    _add_replay(commands.add_parser(
        "replay", help="run policies many times on recorded searches, and score what they recommend"
    ))  # fmt: skip
    command = commands.add_parser("show", help="what recorded searches are like: spread and noise")
    command.add_argument("tables", nargs="+", type=Path, metavar="DIR", help="as of replay")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_show)
    return parser


def _add_record(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("space", metavar="SPACE", help="a search space: its name or its file")
    add("--configurations", type=_at_least(2), default=48, metavar="N",
        help="number 0 is the defaults, the others are random (default: 48)")  # fmt: skip
    add("--folds", type=_at_least(2), default=4, metavar="K", help="of the training videos "
        "(default: 4)")  # fmt: skip
    add("--seeds", type=_at_least(2), default=3, metavar="N", help="trainings of a configuration "
        "on a fold, and on the whole training split (default: 3)")  # fmt: skip
    add("--dataset", metavar="NAME", help="another imported dataset than the space names")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the space")
    add("--workers", type=_at_least(1), default=os.cpu_count() or 1, metavar="N",
        help="processes, of one thread each (default: the number of cores)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="the folder of the table")
    command.set_defaults(run=_record)


def _add_replay(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("tables", nargs="+", type=Path, metavar="DIR", help="folders that record wrote")
    add("--policies", type=_policies, default=list(POLICIES), metavar="all|NAME,..",
        help=f"of {', '.join(POLICIES)} (default: all)")  # fmt: skip
    add("--searches", type=_at_least(10), default=300, metavar="N", help="of each policy on each "
        "table (default: 300)")  # fmt: skip
    add("--budget", type=_at_least(4), default=20, metavar="N", help="full runs of a search "
        "(default: 20)")  # fmt: skip
    add("--workers", type=_at_least(1), default=os.cpu_count() or 1, metavar="N",
        help="processes (default: the number of cores)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_replay)


def _policies(text: str) -> list[str]:
    names = list(POLICIES) if text == "all" else list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in POLICIES]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is no policy; give all, or names of {', '.join(POLICIES)}"
        )
    return names


class _at_least:
    """The type of a whole number from `least` on."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        value = int(text) if text.isdecimal() else -1
        if value < self.least:
            raise argparse.ArgumentTypeError(
                f"{text}: a whole number from {self.least} on is needed"
            )
        return value


if __name__ == "__main__":
    run_main(main)
