"""Extracts features of videos, in this process or on several by Ray, and says a line a video."""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path

import torch

from ptal_ray.errors import ConfigError, DataError, StorageError
from ptal_ray.video.encoders.encoder import make_encoder
from ptal_ray.video.extractor import Extractor, Outcome
from ptal_ray.video.files import find_videos
from ptal_ray.video.manifest import Manifest
from ptal_ray.video.probe import check_installed
from ptal_ray.video.settings import Settings, settings_of


def extract(args: argparse.Namespace) -> list[Outcome]:
    """Extracts what is not finished; returns the outcomes of those videos.

    Raises:
        ConfigError: flags, a folder of other settings, or a package that is not installed.
        DataError: there is no video, or none can be read.
        StorageError: the storage is full.
    """
    check_installed()
    settings, videos = settings_of(args), find_videos(args.videos)
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
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
    extractor = Extractor(settings, out, args.device, torch.get_num_threads())
    yield from (extractor(id, file) for id, file in videos.items())
