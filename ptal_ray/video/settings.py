"""What decides the features of a video."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.errors import ConfigError
from ptal_ray.video.encoders.encoder import NAMED, FileEncoder
from ptal_ray.video.probe import Video
from ptal_ray.video.windows import Span, Windows

_OF_FILES = ("size", "mean", "std", "clip")  # flags of encoders in a file
STRIDE = Span(value=16, in_seconds=False)  # of encoders that take each frame alone


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Equal settings give equal features.

    Args:
        encoder: a name of `NAMED`, or a file and how it is used.
        fps: frames a second that the encoder sees; None: those of each video.
        stride: from window to window.
        window: that a row of features sees.
        dtype: of the features, "float16" or "float32".
    """

    encoder: str | FileEncoder
    fps: float | None
    stride: Span
    window: Span
    dtype: str = "float16"

    @staticmethod
    def of(
        encoder: str | FileEncoder,
        *,
        fps: float | None = None,
        stride: Span | None = None,
        window: Span | None = None,
        dtype: str = "float16",
    ) -> Settings:
        """The settings with what is left out filled in.

        A clip is a window, and windows follow on each other; else stride and window are equal,
        by default `STRIDE`.
        """
        clip = encoder.clip if isinstance(encoder, FileEncoder) else 1
        whole = Span(value=clip, in_seconds=False) if clip > 1 else stride or STRIDE
        window = window or whole
        stride = stride or (window if clip > 1 else STRIDE)
        return Settings(encoder=encoder, fps=fps, stride=stride, window=window, dtype=dtype)

    def rate(self, video: Video) -> float:
        """Frames a second that the encoder sees of a video."""
        return self.fps or video.fps

    def windows(self, video: Video) -> Windows:
        """The windows over a video, in frames at `rate`."""
        rate = self.rate(video)
        length = max(1, round(self.window.frames(rate)))
        return Windows(stride=self.stride.frames(rate), length=length)

    def record(self) -> dict[str, Any]:
        """The settings as JSON; a file by its content.

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
    """The settings that flags say.

    Raises:
        ConfigError: they do not go together, or an encoder, stride or window is none.
    """
    given = {name: getattr(args, name) for name in _OF_FILES if getattr(args, name) is not None}
    encoder: str | FileEncoder = args.encoder
    if Path(args.encoder).suffix in (".pt", ".pt2"):
        size = given.pop("size", (224, 224))
        encoder = FileEncoder(path=Path(args.encoder), height=size[0], width=size[1], **given)
        encoder.record()  # finds a file that cannot be read
    else:
        check_encoder(args.encoder)
        if given:
            raise ConfigError(
                f"--{next(iter(given))}: is for --encoder FILE; {args.encoder} has its own"
            )
    return Settings.of(
        encoder,
        fps=args.fps,
        stride=Span.parse("--stride", args.stride) if args.stride else None,
        window=Span.parse("--window", args.window) if args.window else None,
        dtype=args.dtype,
    )


def check_encoder(name: str) -> None:
    """Finds an encoder that is neither named nor a file.

    Raises:
        ConfigError: so it is.
    """
    if name not in NAMED:
        raise ConfigError(
            f"--encoder {name}: allowed are {', '.join(NAMED)}, or a file .pt or .pt2"
        )
