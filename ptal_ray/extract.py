"""Videos to features: DIR/<id>.npy, each (T, D), and DIR/videos.csv, for `ptal_ray.data import`.

    python -m ptal_ray.extract VIDEOS --out features --encoder efficientnet-lite0 --stride 0.5s

Encoders:
  efficientnet-lite0   an image classifier (ImageNet): 1280 numbers a frame, averaged over a window
  transnetv2           a detector of shot boundaries: 1024 numbers a frame, averaged over a window
  FILE.pt, FILE.pt2    a network of yours, TorchScript or torch.export: of frames or of clips; it
                       is run as a program, so take one that you trust
These are not the I3D features of published tables. Nothing is downloaded.

Repeat a command that was interrupted: finished videos are left out. A video that cannot be read is
listed at the end, and the others are extracted. Exit codes: 0 done, also with some unreadable
videos; 1 storage full, 2 flags, 3 no video could be read, 130 interrupted.
"""

from __future__ import annotations

from ptal_ray.process.interruption import INTERRUPTED, interruptible

# isort: split
import argparse
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch

from ptal_ray.errors import ConfigError, DataError, PtalError, StorageError, full_storage_named
from ptal_ray.process.console import run_main
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.video.encoders.encoder import make_encoder
from ptal_ray.video.extractor import Extractor, Outcome
from ptal_ray.video.files import find_videos
from ptal_ray.video.flags import add_flags, settings_of
from ptal_ray.video.manifest import FREE_SPACE, Manifest
from ptal_ray.video.probe import check_installed
from ptal_ray.video.settings import Settings


def extract(args: argparse.Namespace) -> list[Outcome]:
    """Extracts what is not finished; returns the outcomes of those videos.

    Raises:
        ConfigError: flags, a folder of other settings, or a package that is not installed.
        DataError: there is no video, or none can be read.
        StorageError: the storage is full.
    """
    check_installed()
    settings, videos = settings_of(args), find_videos(args.videos)
    if args.device == "cuda" and args.address is None and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no GPU here; give --device cpu")
    make_encoder(settings.encoder, torch.device("cpu"))  # before anything is started or written
    manifest = Manifest(args.out.absolute())
    with manifest.begun(settings.record(), replace=args.replace):
        left = {id: file for id, file in videos.items() if not manifest.finished(id, file)}
        if len(left) < len(videos):
            print(f"{len(videos) - len(left)} of {len(videos)} videos are finished")
        try:
            outcomes = _watched(left, settings, args)
        finally:
            records = manifest.write_table()
    if not records:
        raise DataError(f"{outcomes[0].broken}; none of {len(videos)} videos could be read")
    return outcomes


def _watched(
    videos: Mapping[str, Path], settings: Settings, args: argparse.Namespace
) -> list[Outcome]:
    """Extracts videos and says so, a line each.

    Raises:
        StorageError: the storage is full.
    """
    began, outcomes = time.perf_counter(), []
    with closing(_outcomes(videos, settings, args)) as found:
        for outcome in found:
            outcomes.append(outcome)
            place = f"{len(outcomes)}/{len(videos)} {outcome.video}"
            if outcome.full:
                raise StorageError(outcome.broken)
            if outcome.broken:
                print(f"{place}: left out", flush=True)
                continue
            rate = outcome.seen / outcome.seconds
            shape = f"{outcome.snippets} x {outcome.dim}"
            print(f"{place}: {outcome.seen} frames, {rate:.1f} a second, {shape}", flush=True)
    taken, seen = time.perf_counter() - began, sum(o.seen for o in outcomes)
    if seen:
        print(f"{seen} frames in {taken:.1f} s, {seen / taken:.1f} a second")
    return outcomes


def _outcomes(
    videos: Mapping[str, Path], settings: Settings, args: argparse.Namespace
) -> Generator[Outcome, None, None]:
    if not videos:
        return
    out = args.out.absolute()
    if args.workers > 1 or args.address is not None:
        from ptal_ray.backends.ray.extraction import extract_spread

        yield from extract_spread(
            videos, settings, out, device=args.device, workers=args.workers, address=args.address
        )
        return
    extractor = Extractor(settings, out, args.device, min(torch.get_num_threads(), usable_cpus()))
    yield from (extractor(id, file) for id, file in videos.items())


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    args.address = None if args.address == "local" else args.address  # Ray's word for none
    try:
        with full_storage_named(args.out, FREE_SPACE):
            outcomes = extract(args)
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; repeat the command to continue", file=sys.stderr)
        return INTERRUPTED
    broken = [outcome.broken for outcome in outcomes if outcome.broken]
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{len(outcomes) - len(broken)} videos extracted, {len(broken)} left out: {args.out}")
    return 0


if __name__ == "__main__":
    run_main(main)
