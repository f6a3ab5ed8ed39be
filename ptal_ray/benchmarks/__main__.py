"""Timings of parts of ptal_ray.

python -m ptal_ray.benchmarks gpu --out reports/gpu
python -m ptal_ray.benchmarks gpu --device cpu --quick
"""

from __future__ import annotations

from ptal_ray.process.interruption import interruptible

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.errors import ConfigError, NoTrialFinished, PtalError
from ptal_ray.process.console import run_main


def _add_gpu(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "gpu", help="step time, precision, memory and packing of each method on a GPU"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:k or cpu")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps")
    parser.add_argument("--minutes", type=float, default=7.0, help="begin no part after these")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="gets gpu.json, GPU.md")
    parser.set_defaults(run=_gpu)


def _gpu(args: argparse.Namespace) -> None:
    """Raises ConfigError where flags are wrong, NoTrialFinished where a part failed."""
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
        raise NoTrialFinished(f"{failed} parts were not measured; the table says why")


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_gpu(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    run_main(main)
