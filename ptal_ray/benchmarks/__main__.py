"""Measurements: recorded searches, policies replayed on them, and methods on a GPU.

    python -m ptal_ray.benchmarks record apn_watch --out reports/search_tables/apn_watch
    python -m ptal_ray.benchmarks replay reports/search_tables/*/ --policies all --searches 300
    python -m ptal_ray.benchmarks points apn_watch lacp_watch --out reports/points
    python -m ptal_ray.benchmarks gpu --out reports/gpu

`gpu` needs only torch, numpy, pyarrow, numba and filelock.
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible  # before slow imports

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.benchmarks.flags import add_points, add_record, add_replay
from ptal_ray.errors import ConfigError, NoTrialFinished, PtalError
from ptal_ray.process.console import Parser, program, run_main


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 flags, 3 data, 130 interrupted."""
    flags = _parser().parse_args(arguments)
    try:
        flags.run(flags)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _add_gpu(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "gpu",
        help="measure step time, precision, memory and packing of each method on a GPU, at the "
        "sizes of its paper; needs only torch, numpy, pyarrow, numba and filelock",
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:k or cpu")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="start no part after this many minutes"
    )
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to test the command")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/gpu"), help="folder of gpu.json and GPU.md"
    )
    parser.set_defaults(run=_gpu)


def _gpu(args: argparse.Namespace) -> None:
    """Run `gpu`; raises ConfigError if flags are wrong, NoTrialFinished if a part failed."""
    from ptal_ray.benchmarks import gpu
    from ptal_ray.methods.method import load, names

    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats}: allowed is 1 or more")
    methods = args.methods or names()
    for name in methods:
        load(name)
    plan = gpu.plan_of(
        methods, args.device, quick=args.quick, repeats=args.repeats, minutes=args.minutes
    )
    found = gpu.measure(plan)
    gpu.write(found, args.out)
    print(gpu.table(found))
    print(f"written: {args.out / 'gpu.json'}, {args.out / 'GPU.md'}")
    if failed := gpu.failures(found):
        raise NoTrialFinished(f"{failed} parts were not measured; the table gives the reasons")


def _record(flags: argparse.Namespace) -> None:
    from ptal_ray.benchmarks.recording import record
    from ptal_ray.space.space import load_space

    record(
        load_space(flags.space, flags.set, flags.dataset), flags.out, folds=flags.folds,
        configurations=flags.configurations, seeds=flags.seeds, workers=flags.workers,
        progress=_progress, note=lambda line: print(f"note: {line}", file=sys.stderr, flush=True),
    )  # fmt: skip
    print(f"{flags.out}: recorded")


def _replay(flags: argparse.Namespace) -> None:
    from ptal_ray.benchmarks.replay import replay
    from ptal_ray.benchmarks.replay_text import lines

    found = replay(
        flags.tables, flags.policies, searches=flags.searches, budget=flags.budget,
        workers=flags.workers, progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(json.dumps(found) if flags.json else "\n".join(lines(found)))


def _show(flags: argparse.Namespace) -> None:
    from ptal_ray.benchmarks.table_facts import fact_lines, facts

    found = {str(folder): facts(folder) for folder in flags.tables}
    text = (line for name, own in found.items() for line in fact_lines(name, own))
    print(json.dumps(found) if flags.json else "\n".join(text))


def _points(flags: argparse.Namespace) -> None:
    from ptal_ray.benchmarks.points_regret import run_points

    run_points(flags)


def _progress(done: int, total: int) -> None:
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    if end == "\r" or done % 20 == 0 or done == total:
        print(f"{done}/{total} trainings", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("benchmarks"), description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "record", help="train many configurations on every fold with every seed, for replay; "
        "the same command continues an interrupted recording",
    )  # fmt: skip
    add_record(command)
    command.set_defaults(run=_record)
    command = commands.add_parser(
        "replay", help="run policies many times on recorded searches, and score what they recommend"
    )
    add_replay(command)
    command.set_defaults(run=_replay)
    command = commands.add_parser("show", help="show the spread and the noise of recorded searches")
    command.add_argument(
        "tables", nargs="+", type=Path, metavar="DIR", help="folders written by `record`"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_show)
    command = commands.add_parser(
        "points", help="measure the regret of selecting by held-out points alone"
    )
    add_points(command)
    command.set_defaults(run=_points)
    _add_gpu(commands)
    return parser


if __name__ == "__main__":
    run_main(main)
