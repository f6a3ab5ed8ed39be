"""Finds actions in new videos with a trained model; the data it was trained on is not needed.

    python -m ptal_ray.predict studies/NAME --features DIR --out detections.json
    python -m ptal_ray.predict runs/best/model.pt --features DIR --out page.html --min-score 0.3
    python -m ptal_ray.predict runs/best --export model.pt2

MODEL is a study (the first final run of its best configuration), the folder of a run, a model.pt,
a best.yaml beside one, or models:/NAME/VERSION of the MLflow registry. DIR holds one <id>.npy of
shape (T, D) a video. An interrupted prediction continues with the same command. Videos whose
features cannot be used are listed at the end.
"""

from __future__ import annotations

from ptal_ray.process.interruption import INTERRUPTED, interruptible

# isort: split
import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.errors import ConfigError, PtalError, full_storage_named
from ptal_ray.prediction.command import Request, export, predict
from ptal_ray.prediction.found_model import find_model
from ptal_ray.prediction.outputs import FORMATS
from ptal_ray.process.console import run_main


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 done, also where some videos were refused, 1 storage full, 2 flags, "
        "3 model or data, or no video could be scored, 130 interrupted",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a study, a run, a model.pt, a best.yaml or models:/...")
    add("--features", type=Path, metavar="DIR", help="folder of <id>.npy, each (T, D)")
    add("--out", type=Path, metavar="PATH", help="the file to write; for srt and vtt a folder")
    add("--format", choices=FORMATS, help="default: by the suffix of --out, else json")
    add("--min-score", type=float, metavar="S", help="leave out detections with a lower score")
    add("--top", type=int, metavar="N", help="of each video the N best detections alone")
    add("--durations", type=Path, metavar="CSV", help="columns video and duration, in seconds; "
        "default: what the snippets cover")  # fmt: skip
    add("--fps", type=float, metavar="F", help="frames per second that --stride counts")
    add("--stride", type=float, metavar="N", help="frames from snippet to snippet (default: the "
        "stride of training)")  # fmt: skip
    add("--window", type=float, metavar="N", help="frames that a snippet sees (default: in the "
        "proportion of training)")  # fmt: skip
    add("--allow-stride", action="store_true", help="accept another stride than that of training, "
        "and durations that contradict it")  # fmt: skip
    add("--device", help="cpu, cuda or cuda:K (default: cuda where there is one)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    add("--export", type=Path, metavar="FILE.pt2", help="instead write the network by "
        "torch.export and compare its scores")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object, all else to stderr")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Does what the flags say; returns what --json prints.

    Raises:
        PtalError: it could not.
    """
    if args.export is not None:
        if given := [f"--{n}" for n in ("features", "out", "format") if getattr(args, n)]:
            raise ConfigError(f"--export: excludes {', '.join(given)}; export alone, then predict")
        return export(_model_path(args.model), args.export)
    if args.features is None or args.out is None:
        raise ConfigError("--features DIR and --out PATH are needed, or --export FILE.pt2")
    request = Request(
        features=args.features,
        out=args.out,
        kind=args.format,
        min_score=args.min_score,
        top=args.top,
        durations=args.durations,
        fps=args.fps,
        stride=args.stride,
        window=args.window,
        any_stride=args.allow_stride,
        device=args.device,
        threads=args.threads,
    )
    request.check()
    return predict(request, _model_path(args.model), progress=_progress)


def _model_path(given: str) -> Path:
    if given.startswith("models:"):
        from ptal_ray.tracking.registry import registered_model  # MLflow is slow to import

        return registered_model(given)
    return find_model(given)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} videos", end=end, file=sys.stderr, flush=True)


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parse(argv)
    try:
        with full_storage_named(args.out or args.export or Path()):
            outcome = run(args)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    lines = outcome.pop("lines")
    print(lines, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(outcome))
    return 0


if __name__ == "__main__":
    run_main(main)
