"""The files of one run: on this machine and, where its study has one, in a remote storage.

The folder of a run is all that survives a kill: report.json is written, and sent, before
checkpoint.pt, so a checkpoint always has its report beside it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.storage.remote import Remote
from ptal_ray.study.events import loads
from ptal_ray.training.worker import Worker

CHECKPOINT, REPORT, SCORES, DETECTIONS, MODEL = (
    "checkpoint.pt", "report.json", "scores.npz", "detections.json", "model.pt"
)  # fmt: skip
_STATE = (REPORT, CHECKPOINT)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files.

    Args:
        path: on this machine.
        remote: where every machine finds them; None where `path` is the only place.
    """

    path: Path
    remote: Remote | None = None

    def report(self) -> dict[str, Any] | None:
        """The result that was saved here with a checkpoint, if there is one."""
        if not all((self.path / name).exists() for name in _STATE):
            return None
        saved: dict[str, Any] = loads((self.path / REPORT).read_text("utf-8"))
        return saved

    def has_checkpoint(self) -> bool:
        """Whether the run can go on from a checkpoint."""
        return self.report() is not None or self._remote_step() > 0

    def agree(self, rank: int, world_size: int) -> None:
        """Every worker of a run has the same checkpoint here afterwards, the newest there is.

        That is the one in the remote storage, unless the first worker's machine has a later one,
        which a killed process could not send; it is sent now.

        Raises:
            StorageError: the storage cannot be read or written.
        """
        if self.remote is None:
            return
        if rank == 0:
            here = (self.report() or {"step": 0})["step"]
            if here > self._remote_step():
                self.send(SCORES, DETECTIONS, MODEL, *_STATE)
            else:
                self._pull()
        place = (socket.gethostname(), str(self.path))
        if Worker(rank=rank, world_size=world_size).from_first(place) != place:
            self._pull()

    def send(self, *names: str) -> None:
        """Copies those of the named files that exist to the remote storage, in this order.

        Raises:
            StorageError: it cannot be written.
        """
        for name in names:
            if self.remote and (self.path / name).exists():
                (self.remote / name).push(self.path / name)

    def leave(self) -> None:
        """Removes from this machine what it holds only to train a run that lies elsewhere too."""
        if self.remote:
            for name in (CHECKPOINT, SCORES):
                (self.path / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Removes the checkpoint and its report, everywhere.

        Raises:
            StorageError: the storage cannot be reached.
        """
        for name in reversed(_STATE):
            (self.path / name).unlink(missing_ok=True)
            if self.remote:
                (self.remote / name).remove()

    def _pull(self) -> None:
        assert self.remote is not None
        for name in reversed(_STATE):
            (self.path / name).unlink(missing_ok=True)
        for name in _STATE:
            (self.remote / name).pull(self.path / name)

    def _remote_step(self) -> int:
        """The step of the report beside the remote checkpoint; 0 for none."""
        if self.remote is None or not set(_STATE) <= set(self.remote.names()):
            return 0
        text = (self.remote / REPORT).read()
        return int(loads(text)["step"]) if text else 0
