"""What `python -m ptal_ray.predict` asks for, checked, done, and said in a few lines."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ptal_ray.data.types import Grid
from ptal_ray.errors import ConfigError
from ptal_ray.prediction.export import export_model
from ptal_ray.prediction.folder import feature_files, feature_ids, read_durations
from ptal_ray.prediction.found_model import find_model
from ptal_ray.prediction.outputs import output_format, strongest, write_output
from ptal_ray.prediction.partial import Partial
from ptal_ray.prediction.run import Found, identity, predict_folder
from ptal_ray.prediction.target import check_output
from ptal_ray.prediction.trained import load_model

SHOWN = 20  # refused videos that are listed


@dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of a prediction; None where one was not given.

    Args:
        features: folder of <id>.npy.
        out: the file, or folder of subtitles, to write.
        kind: format of the output.
        min_score, top: which detections of a video are written.
        durations: CSV of seconds by video.
        fps, stride, window: frames per second, and what the features take of them.
        any_stride: accept another stride than that of training.
        device: where the network runs.
        threads: of the CPU.
    """

    features: Path
    out: Path
    kind: str | None = None
    min_score: float | None = None
    top: int | None = None
    durations: Path | None = None
    fps: float | None = None
    stride: float | None = None
    window: float | None = None
    any_stride: bool = False
    device: str | None = None
    threads: int | None = None

    def check(self) -> None:
        """Finds out what no model is needed to know.

        Raises:
            ConfigError: a flag is wrong or lacks another.
        """
        numbers = {"top": self.top, "fps": self.fps, "stride": self.stride,
                   "window": self.window, "threads": self.threads}  # fmt: skip
        for flag, value in numbers.items():
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{flag} {value}: must be positive")
        if self.min_score is not None and math.isnan(self.min_score):
            raise ConfigError(f"--min-score {self.min_score}: a number is needed")
        for flag, value, other in (
            ("fps", self.fps, self.stride), ("stride", self.stride, self.fps),
            ("window", self.window, self.stride),
        ):  # fmt: skip
            if value is not None and other is None:
                raise ConfigError(f"--{flag}: give --fps and --stride, which say what it counts")
        output_format(self.out, self.kind)

    def grid(self, trained: Grid) -> Grid:
        """The grid of the new features; without flags that of training."""
        if self.fps is None or self.stride is None:
            return trained
        stride_s = self.stride / self.fps
        if self.window is None:
            return Grid(stride_s=stride_s, offset_s=trained.offset_s * stride_s / trained.stride_s)
        return Grid(stride_s=stride_s, offset_s=(self.window - self.stride) / 2 / self.fps)


def run(args: argparse.Namespace, progress: Callable[[int, int], None]) -> dict[str, object]:
    """Does what the flags say; returns what --json prints.

    Raises:
        PtalError: it could not.
    """
    if args.export is not None:
        if given := [f"--{n}" for n in ("features", "out", "format") if getattr(args, n)]:
            raise ConfigError(f"--export: excludes {', '.join(given)}; export alone, then predict")
        return export(find_model(args.model), args.export)
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
    return predict(request, find_model(args.model), progress=progress)


def predict(
    request: Request, model_path: Path, progress: Callable[[int, int], None]
) -> dict[str, object]:
    """Detects, writes the output, and returns what to say: "lines" for a person, and facts.

    Raises:
        ConfigError: the device is not there.
        DataError: the model, the folder or the durations cannot be used, or no video can.
    """
    torch.set_num_threads(request.threads or os.cpu_count() or 1)
    kind = output_format(request.out, request.kind)
    durations = read_durations(request.durations) if request.durations else None
    ids = feature_ids(request.features)
    check_output(request.out, kind, ids)
    model = load_model(model_path, _device(request.device), ids)
    grid = request.grid(model.file.grid)
    model = model.with_grid(grid, any_stride=request.any_stride)
    files, broken = feature_files(request.features, ids, model.expected, durations)
    with Partial(request.out, identity(model)) as partial:
        found = predict_folder(model, files, broken, partial, progress)
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
    return facts | {"lines": _lines(request.out, shown)}


def export(model_path: Path, out: Path) -> dict[str, object]:
    """Writes the network of a model for `torch.export.load`; returns as `predict`.

    Raises:
        ConfigError: the network of this method cannot be exported.
        DataError: the model cannot be used, or the exported scores differ.
    """
    model = load_model(model_path, torch.device("cpu"))
    difference = export_model(model, out)
    line = f"exported  {out}  (scores differ by at most {difference:.1g})"
    facts: dict[str, object] = {"model": str(model_path), "out": str(out)}
    return facts | {"difference": difference, "lines": line}


def _lines(out: Path, found: Found) -> str:
    number = sum(map(len, found.detections.values()))
    lines = [f"{number} detections in {len(found.detections)} videos: {out}"]
    if found.broken:
        lines.append(f"{len(found.broken)} videos were refused:")
        lines += [f"  {id}: {reason}" for id, reason in list(found.broken.items())[:SHOWN]]
    if len(found.broken) > SHOWN:
        lines.append(f"  and {len(found.broken) - SHOWN} more; --json names all")
    return "\n".join(lines)


def _device(name: str | None) -> torch.device:
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {chosen}: not usable here ({reason}); try cpu") from error
    return torch.device(chosen)
