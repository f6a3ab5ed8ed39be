"""Measures the time and memory of a method's parts on this machine.

python -m ptal_ray.profile apn --snippets 750 --dim 2048 --device cuda --precision bf16
python -m ptal_ray.profile evaluation
python -m ptal_ray.profile suppression
python -m ptal_ray.profile tracking --uri http://127.0.0.1:5000 --writers 8 --repeats 3
python -m ptal_ray.profile driver --trials 1000 --concurrent 64
python -m ptal_ray.profile logging --trials 100 --concurrent 8 --repeats 5
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import json
from collections.abc import Sequence

from ptal_ray.benchmarks.flags import OTHERS
from ptal_ray.space.catalog import POLICIES
from ptal_ray.video.flags import count


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("profile"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="TARGET", help=f"the name of a method, or {', '.join(OTHERS)}"
    )
    parser.add_argument("--batch", type=count, default=16, help="videos per batch (default: 16)")
    parser.add_argument(
        "--snippets", type=count, default=100, help="snippets per video (default: 100)"
    )
    parser.add_argument("--dim", type=count, default=2048, help="channels D (default: 2048)")
    parser.add_argument("--classes", type=count, default=20, help="classes C (default: 20)")
    parser.add_argument("--points", type=count, default=10, help="points per video")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:K (default: cpu)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=count, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=count, default=9)
    parser.add_argument("--set", action="append", default=[], metavar="train.KEY=VALUE")
    parser.add_argument("--uri", help="tracking: server or database (default: a new SQLite file)")
    parser.add_argument(
        "--writers", type=count, default=1, help="tracking: concurrent processes, one study each"
    )
    parser.add_argument("--runs", type=count, default=40, help="tracking: trials per writer")
    parser.add_argument("--reports", type=count, default=20, help="tracking: reports per trial")
    parser.add_argument("--metrics", type=count, default=10, help="tracking: metrics per report")
    parser.add_argument(
        "--one-by-one",
        action="store_true",
        help="tracking: send each report in a request of its own",
    )
    parser.add_argument(
        "--trials", type=count, default=1000, help="driver, logging: trials, which train nothing"
    )
    parser.add_argument(
        "--concurrent", type=count, default=64, help="driver, logging: concurrent trials"
    )
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default="race",
        help="driver, logging: policy of the study (default: race)",
    )
    parser.add_argument(
        "--without-ray", action="store_true", help="driver: measure it without Ray, Tune and MLflow"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.benchmarks.timings import measure, table

    def work() -> int:
        """Measure and print."""
        result = measure(args)
        as_json = args.json or args.target in ("driver", "logging")
        print(json.dumps(result, indent=1) if as_json else table(result))
        return 0

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
