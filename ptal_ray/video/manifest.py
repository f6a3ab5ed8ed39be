"""The manifest of an output folder: its settings, and a record for each finished video.

DIR/<id>.npy               features (T, D)
DIR/videos.csv             a line per video, for `python -m ptal_ray.data import --fps`
DIR/manifest/settings.json
DIR/manifest/videos/<id>.json    written after the features; it marks the video as finished
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.errors import ConfigError, DataError, full_storage_named
from ptal_ray.storage.lock import locked
from ptal_ray.storage.whole import write_whole

COLUMNS = (
    "video", "fps", "stride", "window", "snippets", "dim", "duration_s", "frames", "video_fps",
    "variable", "file",
)  # fmt: skip

FREE_SPACE = "free space and repeat the command"

Record = dict[str, Any]


class Manifest:
    """The files of an output folder; each is written atomically.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._folder = out / "manifest"
        self._videos = self._folder / "videos"

    @contextmanager
    def begun(self, settings: Record, *, replace: bool) -> Iterator[None]:
        """Create the folder, or continue one with the same settings; one process at a time.

        Args:
            settings: settings that determine the features.
            replace: whether to discard existing features, with any settings.

        Raises:
            ConfigError: it cannot be written, another process writes it, or it has features with
                other or unknown settings.
            StorageError: the storage is full.
        """
        try:
            with full_storage_named(self.out, FREE_SPACE):
                self.out.mkdir(parents=True, exist_ok=True)
                if not replace:
                    self._check(settings)
                self._videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--out {self.out}: cannot be written ({error.strerror}); give another folder"
            ) from error
        with locked(self._folder / ".lock", wait=False) as free:
            if not free:
                raise ConfigError(
                    f"--out {self.out}: another process is writing to it; wait for it or stop it"
                )
            if replace:  # first the table, last the record of each video
                (self.out / "videos.csv").unlink(missing_ok=True)
                for record in self._videos.glob("*.json"):
                    (self.out / f"{record.stem}.npy").unlink(missing_ok=True)
                    record.unlink()
            write_whole(self._folder / "settings.json", json.dumps(settings, indent=1))
            yield

    def settings(self) -> Record:
        """The settings of the features in the folder; empty if no extraction wrote it.

        Raises:
            DataError: it cannot be read.
        """
        path = self._folder / "settings.json"
        return _read(path) if path.exists() else {}

    def _check(self, settings: Record) -> None:
        advice = "give another --out, or --replace to extract all videos again"
        if not (before := self.settings()):
            if any(self.out.glob("*.npy")):
                raise ConfigError(
                    f"--out {self.out}: contains .npy files of unknown settings; {advice}"
                )
            return
        changed = [
            f"{key} {before.get(key)}, now {settings.get(key)}"
            for key in {**before, **settings} if before.get(key) != settings.get(key)
        ]  # fmt: skip
        if changed:
            raise ConfigError(
                f"--out {self.out}: was extracted with {'; '.join(changed)}; {advice}"
            )

    def finished(self, video: str, file: Path) -> bool:
        """Whether the features of a video exist and are from a file of this size."""
        path = self._videos / f"{video}.json"
        if not path.exists() or not (self.out / f"{video}.npy").exists():
            return False
        return bool(_read(path).get("bytes") == file.stat().st_size)

    def add(self, features: np.ndarray, record: Record) -> None:
        """Write the features of a video, then its record.

        Raises:
            OSError: they cannot be written; no partial file remains.
        """
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        write_whole(self.out / f"{record['video']}.npy", buffer.getbuffer())
        write_whole(self._videos / f"{record['video']}.json", json.dumps(record))

    def write_table(self) -> list[Record]:
        """Write videos.csv of all finished videos, sorted by id; returns their records."""
        records = sorted((_read(p) for p in self._videos.glob("*.json")), key=lambda r: r["video"])
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(records)
        write_whole(self.out / "videos.csv", text.getvalue())
        return records


def _read(path: Path) -> Record:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: unreadable ({error}); remove it or give --replace") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be a JSON object; remove it or give --replace")
    return found
