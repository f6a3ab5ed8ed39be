"""The interface of encoders, their specifications, and their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ptal_ray.errors import ConfigError
from ptal_ray.video.decode import Image, Size
from ptal_ray.video.windows import Rows, Windows

_BATCH = {"cpu": 2, "cuda": 32}  # images; on a CPU more are slower: each layer allocates memory


def batch_size(device: torch.device, images: int = 1) -> int:
    """Batch size of a network whose inputs have `images` images each."""
    return max(1, _BATCH[device.type] // images)


class Encoder(Protocol):
    """A network without its last layer: images in, a row of numbers per window out."""

    size: Size

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Rows of the windows over `images`, in blocks (n, D); few images are in memory at a time.

        Raises:
            DataError: the output is not one finite row per window.
        """


def digest(flag: str, path: Path, kind: str) -> str:
    """The sha256 of the file of a network.

    Args:
        flag: the flag with the file.
        path: of the file.
        kind: kind of the required file, for the message.

    Raises:
        ConfigError: the file does not exist.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{flag} {path}: cannot be read ({error.strerror}); give {kind}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class FileEncoder:
    """A network file and how to use it.

    Args:
        path: TorchScript (.pt) or `torch.export` (.pt2).
        height: pixels of an image.
        width: pixels of an image.
        mean: of each of red, green and blue, in 0 to 1; it is subtracted.
        std: of each; the difference is divided by it.
        clip: images per input; 1: (N, 3, height, width); more: (N, 3, clip, height, width).
    """

    path: Path
    height: int = 224
    width: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    clip: int = 1

    def record(self) -> dict[str, object]:
        """The settings that determine its features, for the manifest.

        Raises:
            ConfigError: the file does not exist.
        """
        return {
            "encoder": self.path.name,
            "sha256": digest("--encoder", self.path, "a .pt or .pt2 file"),
            "size": [self.height, self.width],
            "mean": list(self.mean), "std": list(self.std), "clip": self.clip,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class I3d:
    """I3D with the user's weights, one file per stream; rows of two streams are concatenated.

    Args:
        weights: of the image stream; None for no such stream.
        flow: of the optical flow stream; None for no such stream.
        clip: frames per input.
    """

    weights: Path | None = None
    flow: Path | None = None
    clip: int = 16

    def record(self) -> dict[str, object]:
        """The settings that determine its features, for the manifest.

        Raises:
            ConfigError: a file cannot be read, or none was given.
        """
        streams = {"--weights": self.weights, "--flow": self.flow}
        found = {
            f"{flag[2:]}_sha256": digest(flag, path, "a state dict of PyTorch")
            for flag, path in streams.items()
            if path is not None
        }
        if not found:
            raise ConfigError(
                "--encoder i3d: pass its weights, a PyTorch state dict: --weights FILE for "
                "images, --flow FILE for optical flow, or both"
            )
        return {"encoder": "i3d", "clip": self.clip} | found


Spec = str | FileEncoder | I3d
NAMED = {
    "efficientnet-lite0": "an image classifier's 1280 numbers a frame (ImageNet), window means",
    "i3d": "1024 numbers a clip and stream, of images or optical flow, weights of yours",
    "transnetv2": "a shot detector's 1024 numbers a frame, of 50 to 100 frames, window means",
}
