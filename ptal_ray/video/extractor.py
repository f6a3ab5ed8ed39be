"""Features of one video after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ptal_ray.errors import DataError, StorageError, full_storage_named
from ptal_ray.video.decode import Image, images
from ptal_ray.video.encoders.make import make_encoder
from ptal_ray.video.manifest import FREE_SPACE, Manifest, Record
from ptal_ray.video.probe import probe
from ptal_ray.video.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a video.

    Args:
        video: its id.
        broken: one line with the reason why it has no features; "" if it has.
        full: whether the storage is full, so no other video can be written either.
        snippets: rows of its features.
        dim: numbers per row.
        seen: frames given to the encoder.
        seconds: time for reading, encoding and writing.
    """

    video: str
    broken: str = ""
    full: bool = False
    snippets: int = 0
    dim: int = 0
    seen: int = 0
    seconds: float = 0.0


class Extractor:
    """Read videos, encode them and write their features.

    Args:
        settings: settings that determine the features.
        out: the folder that `Manifest.begun` made.
        device: to compute on.
        threads: for decoding and computing.

    Raises:
        ConfigError: the encoder is not available.
    """

    def __init__(self, settings: Settings, out: Path, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._settings, self._manifest, self._threads = settings, Manifest(out), threads
        self._encoder = make_encoder(settings.encoder, torch.device(device))

    def __call__(self, video: str, file: Path) -> Outcome:
        """Extract one video; problems are in the outcome."""
        began = time.perf_counter()
        try:
            features, record, seen = self._features(video, file)
            with full_storage_named(self._manifest.out, FREE_SPACE):
                self._manifest.add(features, record)
        except DataError as error:
            return Outcome(video=video, broken=str(error))
        except StorageError as error:
            return Outcome(video=video, broken=str(error), full=True)
        except OSError as error:
            return Outcome(video=video, broken=f"{error.filename or file}: {error.strerror}")
        rows, dim = features.shape
        taken = time.perf_counter() - began
        return Outcome(video=video, snippets=rows, dim=dim, seen=seen, seconds=taken)

    def _features(self, id: str, file: Path) -> tuple[np.ndarray, Record, int]:
        """(features (T, D), record, frames seen) of a video."""
        video = probe(file)
        fps, windows = self._settings.rate(video), self._settings.windows(video)
        counted = _Counted(images(video, fps, self._encoder.size, self._threads))
        with np.errstate(over="ignore"):  # found below
            rows = [
                block.astype(self._settings.dtype)
                for block in self._encoder.encode(counted, windows)
            ]
        features = np.concatenate(rows)
        if not np.isfinite(features).all():
            raise DataError(
                f"{file}: its features are not finite in {features.dtype}; use --dtype float32, or "
                "correct the encoder"
            )
        record = {
            "video": id, "fps": fps, "stride": windows.stride, "window": windows.length,
            "snippets": len(features), "dim": features.shape[1], "duration_s": video.duration_s,
            "frames": video.frames, "video_fps": video.fps, "variable": int(video.variable),
            "file": str(file), "bytes": file.stat().st_size,
        }  # fmt: skip
        return features, record, counted.number


class _Counted:
    """Iterates over images once, and counts them."""

    def __init__(self, images: Iterator[Image]) -> None:
        self._images, self.number = images, 0

    def __iter__(self) -> Iterator[Image]:
        for image in self._images:
            self.number += 1
            yield image
