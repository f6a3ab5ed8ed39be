"""Extracts features of videos, in this process or in several with Ray, with a line per video."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from ptal_ray.errors import ConfigError, DataError, StorageError
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.video.encoders.make import make_encoder
from ptal_ray.video.extractor import Extractor, Outcome
from ptal_ray.video.files import find_videos
from ptal_ray.video.manifest import Manifest
from ptal_ray.video.probe import check_installed
from ptal_ray.video.settings import Settings, settings_of


@dataclass(frozen=True, kw_only=True)
class Place:
    """The device, processes and cluster that compute features.

    Args:
        device: "cpu" or "cuda"; None uses cuda if available.
        workers: processes; more than one use Ray.
        address: of a running Ray cluster.
    """

    device: str | None = None
    workers: int = 1
    address: str | None = None

    @property
    def by_ray(self) -> bool:
        """Whether Ray is needed."""
        return self.workers > 1 or self.address is not None

    def checked_device(self) -> str:
        """The device.

        Raises:
            ConfigError: it is not available.
        """
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device == "cuda" and self.address is None and not torch.cuda.is_available():
            raise ConfigError("--device cuda: torch finds no GPU here; give --device cpu")
        return device


def extract(args: argparse.Namespace) -> list[Outcome]:
    """Extract the unfinished videos described by the flags; returns their outcomes.

    Raises:
        ConfigError: flags, a folder with other settings, or a package that is not installed.
        DataError: there is no video, or none is readable.
        StorageError: the storage is full.
    """
    check_installed()
    settings, videos = settings_of(args), find_videos(args.videos)
    place = Place(device=args.device, workers=args.workers, address=args.address)
    return extract_videos(videos, settings, args.out, place, replace=args.replace)


def extract_videos(
    videos: Mapping[str, Path],
    settings: Settings,
    out: Path,
    place: Place,
    *,
    replace: bool,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Extract the unfinished videos; returns their outcomes.

    Args:
        videos: id -> file.
        settings: settings that determine the features.
        out: the folder of the features.
        place: where to compute them.
        replace: whether to extract finished videos in `out` again.
        say: prints a line per video.

    Raises:
        ConfigError: a folder of other settings, or a package that is not installed.
        DataError: no video can be read.
        StorageError: the storage is full.
    """
    place = dataclasses.replace(place, device=place.checked_device())
    make_encoder(settings.encoder, torch.device("cpu"))  # before starting or writing anything
    manifest = Manifest(out.absolute())
    with manifest.begun(settings.record(), replace=replace):
        left = {id: file for id, file in videos.items() if not manifest.finished(id, file)}
        if len(left) < len(videos):
            say(f"{len(videos) - len(left)} of {len(videos)} videos are finished")
        try:
            outcomes = _watched(_outcomes(left, settings, manifest.out, place), len(left), say)
        finally:
            records = manifest.write_table()
    if not any(record["video"] in videos for record in records):
        raise DataError(f"{outcomes[0].broken}; none of {len(videos)} videos could be read")
    return outcomes


def _watched(
    found: Generator[Outcome, None, None], total: int, say: Callable[[str], None]
) -> list[Outcome]:
    """The outcomes of `total` videos, with a line per video.

    Raises:
        StorageError: the storage is full.
    """
    began, outcomes = time.perf_counter(), []
    with closing(found):
        for outcome in found:
            outcomes.append(outcome)
            place = f"{len(outcomes)}/{total} {outcome.video}"
            if outcome.full:
                raise StorageError(outcome.broken)
            if outcome.broken:
                say(f"{place}: left out")
                continue
            rate = outcome.seen / outcome.seconds
            shape = f"{outcome.snippets} x {outcome.dim}"
            say(f"{place}: {outcome.seen} frames, {rate:.1f} frames/s, {shape}")
    taken, seen = time.perf_counter() - began, sum(o.seen for o in outcomes)
    if seen:
        say(f"{seen} frames in {taken:.1f} s, {seen / taken:.1f} frames/s")
    return outcomes


def _outcomes(
    videos: Mapping[str, Path], settings: Settings, out: Path, place: Place
) -> Generator[Outcome, None, None]:
    if not videos:
        return
    device = place.checked_device()
    if place.by_ray:
        from ptal_ray.backends.ray.extraction import extract_spread

        yield from extract_spread(
            videos, settings, out, device=device, workers=place.workers, address=place.address
        )
        return
    extractor = Extractor(settings, out, device, min(torch.get_num_threads(), usable_cpus()))
    yield from (extractor(id, file) for id, file in videos.items())
