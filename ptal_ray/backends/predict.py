"""The work of `python -m ptal_ray.predict`, on features or videos, in one or several processes."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ptal_ray.backends.extract import Place, extract_videos
from ptal_ray.data.features.preparation import recorded_extraction
from ptal_ray.errors import ConfigError
from ptal_ray.prediction.command import export, predict, request_of
from ptal_ray.prediction.extraction import extraction_settings
from ptal_ray.prediction.found_model import find_model
from ptal_ray.prediction.outputs import output_format
from ptal_ray.prediction.run import Scorer, score_here
from ptal_ray.prediction.target import check_output
from ptal_ray.study.ensemble_file import first_model
from ptal_ray.training.model_file import read_model
from ptal_ray.video.files import find_videos
from ptal_ray.video.probe import check_installed
from ptal_ray.video.settings import WeightFiles

_OF_FEATURES = ("durations", "annotations", "fps", "stride", "window", "allow_stride")
_OF_VIDEOS = ("encoder", "weights", "flow")
Progress = Callable[[int, int], None]


def run(args: argparse.Namespace, progress: Progress) -> dict[str, object]:
    """Run the command; returns the output of --json.

    Raises:
        PtalError: it failed.
    """
    if args.export is not None:
        _excluded("--export", "export alone, then predict", args, "features", "videos", "out",
                  "format")  # fmt: skip
        return export(find_model(args.model), args.export)
    if args.out is None or (args.features is None) == (args.videos is None):
        raise ConfigError(
            "pass --out PATH with one of --features DIR and --videos DIR, or pass --export FILE.pt2"
        )
    place = Place(device=args.device, workers=args.workers, address=args.address)
    if place.by_ray and args.device not in (None, "cpu", "cuda"):
        raise ConfigError(
            f"--device {args.device}: with several processes only cpu or cuda is allowed"
        )
    score = _scorer(place, args.threads)
    if args.videos is not None:
        _excluded("--videos", "the extraction sets them", args, *_OF_FEATURES)
        return _of_videos(args, place, score, progress)
    _excluded("--features", "they apply only to --videos", args, *_OF_VIDEOS)
    request = request_of(args, args.features)
    request.check()
    return predict(request, find_model(args.model), score=score, progress=progress)


def _excluded(flag: str, why: str, args: argparse.Namespace, *names: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
    if given:
        raise ConfigError(f"{flag} cannot be combined with {', '.join(given)}; {why}")


def _scorer(place: Place, threads: int | None) -> Scorer:
    if not place.by_ray:
        return score_here
    from ptal_ray.backends.ray.prediction import score_spread

    return partial(
        score_spread,
        device=place.checked_device(),
        threads=threads,
        workers=place.workers,
        address=place.address,
    )


def _of_videos(
    args: argparse.Namespace, place: Place, score: Scorer, progress: Progress
) -> dict[str, object]:
    """Extract features beside the output, predict, and remove the features.

    If the command is interrupted or fails, they remain and the next call uses them.
    """
    folder = args.out.with_name(f".{args.out.name}.features")
    request = request_of(args, folder)
    request.check()
    path = find_model(args.model)
    files = WeightFiles(encoder=args.encoder, weights=args.weights, flow=args.flow)
    settings = extraction_settings(path, read_model(first_model(path)), files)
    check_installed()
    videos = find_videos(args.videos)
    check_output(args.out, output_format(args.out, args.format), videos)
    outcomes = extract_videos(
        videos, settings, folder, replace(place, device=_kind(args.device)),
        replace=recorded_extraction(folder) != settings.record(),
        say=partial(print, file=sys.stderr, flush=True),
    )  # fmt: skip
    broken = {outcome.video: outcome.broken for outcome in outcomes if outcome.broken}
    request = replace(request, only=frozenset(videos), broken=broken)
    done = predict(request, path, score=score, progress=progress)
    shutil.rmtree(folder)
    return done


def _kind(device: str | None) -> str | None:
    """The kind of a device such as cuda:1."""
    return None if device is None else device.partition(":")[0]
