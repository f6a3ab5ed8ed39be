"""Tunes the decode parameters of a finished study again, on its cached scores: nothing is trained.

    python -m ptal_ray.decode studies/apn_gtea-20261121-120000
    python -m ptal_ray.decode studies/X --trial 7 --settings 500 --out decode.html

Decodes the held-out videos of what the study recommends with many settings, says which is best and
what it gains over the defaults, and writes a page with the landscape around it. The test split is
not read.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("decode"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--trial", type=int, metavar="N", help="use only the scores of this trial")
    parser.add_argument(
        "--settings", type=int, default=256, metavar="N", help="number of settings to try"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("decode.html"), help="HTML file of the results"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    from ptal_ray.reporting.decode_again import decode_again
    from ptal_ray.reporting.html.decode import check_page, said, write_page

    def work() -> int:
        """Tune the decode parameters, write the page and print the result."""
        check_page(args.out)
        print(f"decoding the scores that the trials of {args.study} kept", file=sys.stderr)
        found = decode_again(args.study, args.trial, args.settings)
        write_page(found, args.out)
        if args.json:
            print(json.dumps(dataclasses.asdict(found) | {"out": str(args.out)}))
        else:
            print(f"{said(found)}\npage    {args.out}")
        return 0

    return exit_code(work)


if __name__ == "__main__":
    run_main(main)
