"""Measurements that many runs together make: recorded searches, and policies replayed on them.

python -m ptal_ray.benchmarks record apn_watch --out reports/search_tables/apn_watch
python -m ptal_ray.benchmarks replay reports/search_tables/*/ --policies all --searches 300
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible  # before what takes seconds to import

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.benchmarks.flags import add_record, add_replay
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
    command = commands.add_parser(
        "record", help="train many configurations on every fold with every seed, for replay; a "
        "recording that was interrupted goes on",
    )  # fmt: skip
    add_record(command)
    command.set_defaults(run=_record)
    command = commands.add_parser(
        "replay", help="run policies many times on recorded searches, and score what they recommend"
    )
    add_replay(command)
    command.set_defaults(run=_replay)
    command = commands.add_parser("show", help="what recorded searches are like: spread and noise")
    command.add_argument("tables", nargs="+", type=Path, metavar="DIR", help="as of replay")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_show)
    return parser


if __name__ == "__main__":
    run_main(main)
