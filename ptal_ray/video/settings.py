"""The settings that determine the features of a video."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.errors import ConfigError
from ptal_ray.video.encoders.encoder import NAMED, FileEncoder, I3d, Spec
from ptal_ray.video.probe import Video
from ptal_ray.video.windows import Span, Windows

_OF_FILES = ("size", "mean", "std", "clip")  # flags for encoders in a file
_OF_I3D = ("weights", "flow", "clip")
_FILES = {"sha256": "encoder", "weights_sha256": "weights", "flow_sha256": "flow"}  # key: flag
STRIDE = Span(value=16, in_seconds=False)  # of encoders of single frames


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Equal settings give equal features.

    Args:
        encoder: a name in `NAMED`, a file and how to use it, or I3D with its weights.
        fps: frames per second for the encoder; None for those of each video.
        stride: from window to window.
        window: of a row of features.
        dtype: of the features, "float16" or "float32".
    """

    encoder: Spec
    fps: float | None
    stride: Span
    window: Span
    dtype: str = "float16"

    @staticmethod
    def of(
        encoder: Spec,
        *,
        fps: float | None = None,
        stride: Span | None = None,
        window: Span | None = None,
        dtype: str = "float16",
    ) -> Settings:
        """The settings, with defaults for missing values.

        For clips, the window is a clip and windows do not overlap; else stride and window are
        equal, by default `STRIDE`.
        """
        clip = 1 if isinstance(encoder, str) else encoder.clip
        whole = Span(value=clip, in_seconds=False) if clip > 1 else stride or STRIDE
        window = window or whole
        stride = stride or (window if clip > 1 else STRIDE)
        return Settings(encoder=encoder, fps=fps, stride=stride, window=window, dtype=dtype)

    def rate(self, video: Video) -> float:
        """Frames per second of a video for the encoder."""
        return self.fps or video.fps

    def windows(self, video: Video) -> Windows:
        """The windows over a video, in frames at `rate`."""
        rate = self.rate(video)
        length = max(1, round(self.window.frames(rate)))
        return Windows(stride=self.stride.frames(rate), length=length)

    def record(self) -> dict[str, Any]:
        """The settings as JSON; files are represented by a hash of their content.

        Raises:
            ConfigError: the file of the encoder cannot be read.
        """
        encoder = self.encoder
        named = {"encoder": encoder} if isinstance(encoder, str) else encoder.record()
        return named | {
            "fps": self.fps, "stride": str(self.stride), "window": str(self.window),
            "dtype": self.dtype,
        }  # fmt: skip


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings in flags.

    Raises:
        ConfigError: they exclude each other, or an encoder, stride or window is not valid.
    """
    encoder = _encoder(args)
    if not isinstance(encoder, str):
        encoder.record()  # raises if a file cannot be read
    return Settings.of(
        encoder,
        fps=args.fps,
        stride=Span.parse("--stride", args.stride) if args.stride else None,
        window=Span.parse("--window", args.window) if args.window else None,
        dtype=args.dtype,
    )


def _encoder(args: argparse.Namespace) -> Spec:
    flags = dict.fromkeys((*_OF_FILES, *_OF_I3D))
    given = {name: getattr(args, name) for name in flags if getattr(args, name) is not None}
    if Path(args.encoder).suffix in (".pt", ".pt2"):
        _check_known(args.encoder, given, _OF_FILES)
        size = given.pop("size", (224, 224))
        return FileEncoder(path=Path(args.encoder), height=size[0], width=size[1], **given)
    check_encoder(args.encoder)
    if args.encoder == "i3d":
        _check_known("i3d", given, _OF_I3D)
        return I3d(**given)
    _check_known(args.encoder, given, ())
    encoder: str = args.encoder
    return encoder


def _check_known(encoder: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Check that no flag belongs to another encoder."""
    for name in given:
        if name not in known:
            whose = "FILE" if name in _OF_FILES else "i3d"
            raise ConfigError(
                f"--{name}: applies only to --encoder {whose}; {encoder} has its own value"
            )


@dataclass(frozen=True, kw_only=True)
class WeightFiles:
    """Network files of the user; None for a file that was not given.

    Args:
        encoder: a program (.pt or .pt2).
        weights, flow: of the streams of I3D.
    """

    encoder: Path | None = None
    weights: Path | None = None
    flow: Path | None = None


def settings_from(record: Mapping[str, Any], files: WeightFiles) -> Settings:
    """The settings in a record of `Settings.record`, with the files that it describes.

    Raises:
        ConfigError: a file is missing, has other content or is not needed, or the encoder is
            unknown.
    """
    encoder = _recorded_encoder(record, files)
    if isinstance(encoder, str):
        check_encoder(encoder)
    else:
        found = encoder.record()
        for key in _FILES:
            if found.get(key) != record.get(key):
                raise ConfigError(f"{_asks(record)}; the given --{_FILES[key]} has other content")
    return Settings(
        encoder=encoder,
        fps=record["fps"],
        stride=Span.parse("--stride", record["stride"]),
        window=Span.parse("--window", record["window"]),
        dtype=record["dtype"],
    )


def _recorded_encoder(record: Mapping[str, Any], files: WeightFiles) -> Spec:
    needed = [flag for key, flag in _FILES.items() if key in record]
    given = [flag for flag in _FILES.values() if getattr(files, flag) is not None]
    if given != needed:
        raise ConfigError(_asks(record))
    if files.encoder is not None:
        height, width = record["size"]
        return FileEncoder(
            path=files.encoder, height=height, width=width, mean=tuple(record["mean"]),
            std=tuple(record["std"]), clip=record["clip"],
        )  # fmt: skip
    if needed:
        return I3d(weights=files.weights, flow=files.flow, clip=record["clip"])
    return str(record["encoder"])


def _asks(record: Mapping[str, Any]) -> str:
    """A text with the files that the encoder of a record needs."""
    needed = [
        f"--{flag} FILE (sha256 {record[key][:12]}...)"
        for key, flag in _FILES.items() if key in record
    ]  # fmt: skip
    files = f"give its files: {' '.join(needed)}" if needed else "it needs no file: give none"
    return f"the features of the training were made by {record['encoder']}; {files}"


def check_encoder(name: str) -> None:
    """Check that an encoder is a known name or a file.

    Raises:
        ConfigError: it is not.
    """
    if name not in NAMED:
        raise ConfigError(
            f"--encoder {name}: allowed are {', '.join(NAMED)}, or a file .pt or .pt2"
        )
