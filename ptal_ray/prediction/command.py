"""The work of a prediction or an export, and its summary in a few lines."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ptal_ray.errors import ConfigError
from ptal_ray.prediction.export import export_model
from ptal_ray.prediction.extraction import check_extraction
from ptal_ray.prediction.folder import feature_files, feature_ids
from ptal_ray.prediction.outputs import output_format, strongest, write_output
from ptal_ray.prediction.partial import Partial
from ptal_ray.prediction.run import Found, Scorer, identity, predict_folder, score_here
from ptal_ray.prediction.target import check_output
from ptal_ray.prediction.times import TimeFlags, read_times
from ptal_ray.prediction.trained import load_model
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.study.ensemble_file import first_model, is_ensemble
from ptal_ray.training.device import run_device
from ptal_ray.training.model_file import read_model

SHOWN = 20  # number of failed videos that are listed


@dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of a prediction; None for a flag that was not given.

    Args:
        features: folder of <id>.npy, or of recordings.
        out: the file, or folder of subtitles, to write.
        kind: format of the output.
        min_score, top: selection of the written detections of a video.
        times: frame rates, strides and durations.
        any_stride: whether to accept another stride than that of training.
        device: of the network.
        threads: number of CPU threads.
        only: ids of the videos; None for all in the folder.
        broken: known problems of other videos, by id.
    """

    features: Path
    out: Path
    kind: str | None = None
    min_score: float | None = None
    top: int | None = None
    times: TimeFlags = TimeFlags()
    any_stride: bool = False
    device: str | None = None
    threads: int | None = None
    only: frozenset[str] | None = None
    broken: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check what can be checked without a model.

        Raises:
            ConfigError: a flag is wrong or needs another.
        """
        for flag, value in {"top": self.top, "threads": self.threads}.items():
            if value is not None and value < 1:
                raise ConfigError(f"--{flag} {value}: must be positive")
        if self.min_score is not None and math.isnan(self.min_score):
            raise ConfigError(f"--min-score {self.min_score}: must be a number")
        self.times.check()
        output_format(self.out, self.kind)


def request_of(args: argparse.Namespace, features: Path) -> Request:
    """The request in the flags, for the features in a folder."""
    return Request(
        features=features,
        out=args.out,
        kind=args.format,
        min_score=args.min_score,
        top=args.top,
        times=TimeFlags(
            durations=args.durations,
            annotations=args.annotations,
            fps=args.fps,
            stride=args.stride,
            window=args.window,
        ),
        any_stride=args.allow_stride,
        device=args.device,
        threads=args.threads,
    )


def predict(
    request: Request,
    model_path: Path,
    *,
    progress: Callable[[int, int], None],
    score: Scorer = score_here,
) -> dict[str, object]:
    """Detect and write the output; returns a summary: "lines" of text, and facts.

    Args:
        request: the request.
        model_path: the model file, or ensemble.json of several.
        progress: called with the number of finished videos.
        score: scores batches of videos; `score_here`, or a function that uses other processes.

    Raises:
        ConfigError: a flag is missing, or the device is not available.
        DataError: the model, the folder, the durations or all videos cannot be used.
    """
    torch.set_num_threads(request.threads or usable_cpus())
    kind = output_format(request.out, request.kind)
    file = read_model(first_model(model_path))
    check_extraction(request.features, model_path, file, any_stride=request.any_stride)
    ids = feature_ids(request.features, of_recordings=file.preparation.of_recordings)
    ids = tuple(id for id in ids if request.only is None or id in request.only)
    check_output(request.out, kind, ids)
    here = score is score_here
    device = torch.device(run_device(request.device)) if here else torch.device("cpu")
    model = load_model(model_path, device, ids)
    expected = replace(model.expected, any_stride=request.any_stride)
    times = read_times(request.times, file, request.features, ids)
    files, broken = feature_files(request.features, ids, expected, times)
    scored_on = device.type if here else request.device or "cpu"
    with Partial(request.out, identity(model, scored_on)) as partial:
        found = predict_folder(
            model, files, broken | dict(request.broken), partial, score, progress
        )
        least = -math.inf if request.min_score is None else request.min_score
        chosen = {id: strongest(own, least, request.top) for id, own in found.detections.items()}
        shown = replace(found, detections=chosen)
        write_output(request.out, kind, shown, model.file.data.classes)
        partial.remove()
    facts: dict[str, object] = {
        "model": str(model_path),
        "out": str(request.out),
        "format": kind,
        "videos": len(shown.detections),
        "detections": sum(map(len, shown.detections.values())),
        "refused": shown.broken,
    }
    return facts | {"lines": _lines(request.out, shown, found)}


def export(model_path: Path, out: Path) -> dict[str, object]:
    """Write the network of a model for `torch.export.load`; returns a summary as `predict`.

    Raises:
        ConfigError: the network of this method cannot be exported.
        DataError: the model cannot be used, or the exported scores differ.
    """
    if is_ensemble(model_path):
        raise ConfigError(
            f"--export: {model_path} has several networks; export one: "
            f"python -m ptal_ray.predict {first_model(model_path)} --export {out}"
        )
    model = load_model(model_path, torch.device("cpu"))
    difference = export_model(model, out)
    line = f"exported  {out}  (scores differ by at most {difference:.1g})"
    facts: dict[str, object] = {"model": str(model_path), "out": str(out)}
    return facts | {"difference": difference, "lines": line}


def _lines(out: Path, shown: Found, every: Found) -> str:
    """What was written, what was left out, and the highest score, which depends on the method."""
    number, total = (sum(map(len, one.detections.values())) for one in (shown, every))
    highest = max((own.score.max() for own in every.detections.values() if len(own)), default=0.0)
    left = f", of {total}" if number < total else ""
    scores = f" (highest score {highest:.2f})" if total else ""
    lines = [f"{number} detections{left} in {len(shown.detections)} videos{scores}: {out}"]
    if shown.broken:
        lines.append(f"{len(shown.broken)} videos could not be used:")
        lines += [f"  {id}: {reason}" for id, reason in list(shown.broken.items())[:SHOWN]]
    if len(shown.broken) > SHOWN:
        lines.append(f"  and {len(shown.broken) - SHOWN} more; --json lists all")
    return "\n".join(lines)
