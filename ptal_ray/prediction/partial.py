"""The finished videos of an unfinished prediction, in one file beside its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ptal_ray.data.types import Segments
from ptal_ray.prediction.folder import ScorableFile
from ptal_ray.storage.whole import write_whole


class Partial:
    """Appends detections of finished videos to those of earlier runs of the same prediction.

    Args:
        out: the output; the file is .<name>.partial beside it.
        identity: everything besides the features that determines the detections; a new one starts
            again.

    `found` has the detections, `files` their inputs: [bytes, time of change, seconds of the video,
    stride and offset].
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.path = out.with_name(f".{out.name}.partial")
        self._identity = json.loads(json.dumps(identity))
        self.found: dict[str, Segments] = {}
        self._made_from: dict[str, list[float]] = {}

    def __enter__(self) -> Partial:
        self._read()
        lines = [self._line(id, own, self._made_from[id]) for id, own in self.found.items()]
        head = json.dumps(self._identity) + "\n"
        write_whole(self.path, "".join([head, *lines]))  # without a partial line
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if not self.found:
            self.remove()

    def holds(self, file: ScorableFile) -> bool:
        """Whether the video is finished and its file unchanged."""
        return self._made_from.get(file.id) == _made_from(file)

    def add(self, file: ScorableFile, found: Segments) -> None:
        """Store the detections of a finished video."""
        self.found[file.id], self._made_from[file.id] = found, _made_from(file)
        self._file.write(self._line(file.id, found, _made_from(file)))
        self._file.flush()

    def remove(self) -> None:
        """Remove the file; called when the output is written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
            if not lines or json.loads(lines[0]) != self._identity:
                return
            for line in lines[1:]:
                plain = json.loads(line)
                columns = {name: np.array(column) for name, column in plain["found"].items()}
                columns["label"] = columns["label"].astype(np.int64)
                self.found[plain["id"]] = Segments(**columns)
                self._made_from[plain["id"]] = plain["from"]
        except (OSError, ValueError, KeyError, TypeError):
            self.found, self._made_from = {}, {}  # damaged; detecting again only takes time

    @staticmethod
    def _line(id: str, found: Segments, made_from: list[float]) -> str:
        columns = {name: column.tolist() for name, column in asdict(found).items()}
        return json.dumps({"id": id, "from": made_from, "found": columns}) + "\n"


def _made_from(file: ScorableFile) -> list[float]:
    return [*file.stamp, file.duration_s, file.grid.stride_s, file.grid.offset_s]
