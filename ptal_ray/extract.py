"""Videos to features: DIR/<id>.npy, each (T, D), and DIR/videos.csv, for `ptal_ray.data import`.

    python -m ptal_ray.extract VIDEOS --out features --encoder efficientnet-lite0 --stride 0.5s

Encoders:
  efficientnet-lite0   an image classifier (ImageNet): 1280 features per frame, averaged per window
  transnetv2           a detector of shot boundaries: 1024 features per frame, averaged per window
  i3d                  I3D with your weights (--weights, --flow): 1024 features per clip and stream
  FILE.pt, FILE.pt2    your own network, TorchScript or torch.export, of frames or of clips; it is
                       executed, so use only files that you trust
No encoder gives exactly the published I3D features, whose flow is TV-L1. Nothing is downloaded.

Repeat an interrupted command to continue; finished videos are skipped. Unreadable videos are listed
at the end, and the others are extracted. Exit codes: 0 done, also with some unreadable videos;
1 storage full, 2 flags, 3 no video could be read, 130 interrupted.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import sys
from collections.abc import Sequence

from ptal_ray.errors import full_storage_named
from ptal_ray.video.flags import add_flags


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("extract"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    args.address = None if args.address == "local" else args.address  # Ray's word for none
    from ptal_ray.backends.extract import extract
    from ptal_ray.video.manifest import FREE_SPACE

    def work() -> int:
        """Extract features and print which videos are broken."""
        with full_storage_named(args.out, FREE_SPACE):
            outcomes = extract(args)
        broken = [outcome.broken for outcome in outcomes if outcome.broken]
        for line in broken:
            print(f"left out: {line}", file=sys.stderr)
        print(f"{len(outcomes) - len(broken)} videos extracted, {len(broken)} left out: {args.out}")
        return 0

    return exit_code(work, lambda: "repeat the command to continue")


if __name__ == "__main__":
    run_main(main)
