"""Finds actions in new videos with a trained model; the data it was trained on is not needed.

    python -m ptal_ray.predict studies/NAME --features DIR --out detections.json
    python -m ptal_ray.predict runs/best/model.pt --features DIR --out page.html --min-score 0.3
    python -m ptal_ray.predict studies/NAME --videos DIR --out detections.json
    python -m ptal_ray.predict runs/best --export model.pt2

MODEL is a study (the first final run of its best configuration), the folder of a run, a model.pt,
the best.yaml beside one, or models:/NAME/VERSION of the MLflow registry. --features holds one
<id>.npy of shape (T, D) per video, with the features of the training, or a recording of sensors,
.npy or .csv. Files are transposed, thinned, cut into windows and normalized as in the import of the
training. --videos extracts features with the same settings as the training features. Repeat an
interrupted command to continue. Videos that cannot be used are listed at the end.
"""

from __future__ import annotations

from ptal_ray.process.console import Parser, exit_code, program, run_main

# isort: split
import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.data.flags import rates
from ptal_ray.errors import full_storage_named
from ptal_ray.prediction.formats import FORMATS
from ptal_ray.video.flags import count


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program("predict"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, also where some videos were refused, 1 storage full, 2 flags, "
        "3 model or data, or no video could be scored, 130 interrupted",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a study, a run, a model.pt, a best.yaml or models:/...")
    add("--features", type=Path, metavar="DIR", help="folder of <id>.npy, each of shape (T, D), or "
        "of recordings (samples, channels)")  # fmt: skip
    add("--videos", type=Path, nargs="+", metavar="VIDEOS", help="video files or folders, searched "
        "at any depth, instead of --features")  # fmt: skip
    add("--encoder", type=Path, metavar="FILE", help="for --videos: your network that made "
        "the features used for training")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="for --videos: the weights of i3d, RGB stream")
    add("--flow", type=Path, metavar="FILE", help="for --videos: those of its optical flow stream")
    add("--out", type=Path, metavar="PATH", help="output file; for srt and vtt a folder")
    add("--format", choices=FORMATS, help="default: by the suffix of --out, else json")
    add("--min-score", type=float, metavar="S", help="drop detections with a score below S")
    add("--top", type=int, metavar="N", help="keep the N best detections of each video")
    add("--durations", type=Path, metavar="CSV", help="columns video and duration, in seconds; "
        "default: those in --annotations, else the time that the snippets cover")  # fmt: skip
    add("--annotations", type=Path, metavar="GT.json", help="durations, and rates for --fps json, "
        "in the ActivityNet layout; nothing else is read from it")  # fmt: skip
    add("--fps", "--rate", type=rates, metavar="json|CSV|NUMBER", help="frame rate of the videos, "
        "the unit of --stride and --window: json: those in --annotations; CSV: columns video,fps "
        "and, if they differ, stride,window; NUMBER: one for all (default: the videos.csv that "
        "an extraction wrote to DIR, else as in training)")  # fmt: skip
    add("--stride", type=float, metavar="N", help="frames between snippets, unless --fps gives it")
    add("--window", type=float, metavar="N", help="frames per snippet (default: as in training, "
        "in proportion to the stride)")  # fmt: skip
    add("--allow-stride", action="store_true", help="accept a stride that differs from training, "
        "and durations that contradict it")  # fmt: skip
    add("--workers", type=count, default=1, metavar="N", help="processes of Ray Data; 1: only "
        "this process, without Ray (default: 1)")  # fmt: skip
    add("--address", default=os.environ.get("RAY_ADDRESS"), help="address of a Ray cluster "
        "(local: none); its nodes must see all files at the same paths")  # fmt: skip
    add("--device", help="cpu, cuda or cuda:K (default: cuda if available)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    add("--export", type=Path, metavar="FILE.pt2", help="export the network with "
        "torch.export and compare its scores, instead of a prediction")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object; everything else goes to stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    args.address = None if args.address == "local" else args.address  # Ray's word for none
    from ptal_ray.backends.predict import run

    def work() -> int:
        """Predict and print what was written."""
        with full_storage_named(args.out or args.export or Path()):
            outcome = run(args, _progress)
        print(outcome.pop("lines"), file=sys.stderr if args.json else sys.stdout)
        if args.json:
            print(json.dumps(outcome))
        return 0

    return exit_code(work, lambda: "repeat the command to continue")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} videos", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_main(main)
