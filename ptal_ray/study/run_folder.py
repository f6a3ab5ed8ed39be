"""The files of one run: on this machine and, if its study has one, in a remote storage.

Only the folder of a run survives a kill. report.json is written, and uploaded, before
checkpoint.pt, so a checkpoint always has its report beside it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from ptal_ray.storage.folder import Folder
from ptal_ray.study.events import loads
from ptal_ray.study.results import Reported, result_of
from ptal_ray.training.worker import Worker

CHECKPOINT, REPORT, SCORES, DETECTIONS, MODEL = (
    "checkpoint.pt", "report.json", "scores.npz", "detections.json", "model.pt"
)  # fmt: skip
_STATE = (REPORT, CHECKPOINT)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Args:
        place: the folder that all machines of the study can read.
    """

    place: Folder

    @property
    def path(self) -> Path:
        """The folder of the run on this machine."""
        return self.place.here

    def report(self) -> Reported | None:
        """The report saved on this machine with a checkpoint, if any."""
        if not self._has_state():
            return None
        return _reported((self.path / REPORT).read_text("utf-8"))

    def has_checkpoint(self) -> bool:
        """Whether the run can continue from a checkpoint."""
        return self._has_state() or self._remote_step() > 0

    def agree(self, rank: int, world_size: int) -> None:
        """Give every worker of a run the newest checkpoint on its machine.

        The newest one is in the remote storage, unless the first worker's machine has a later one
        that a killed process could not upload; it is uploaded now.

        Raises:
            StorageError: the storage cannot be read or written.
        """
        if not self.place.remote:
            return
        if rank == 0:
            here = self.report()
            if here is not None and here.step > self._remote_step():
                self.send(SCORES, DETECTIONS, MODEL, *_STATE)
            else:
                self._pull()
        place = (socket.gethostname(), str(self.path))
        if Worker(rank=rank, world_size=world_size).from_first(place) != place:
            self._pull()

    def send(self, *names: str) -> None:
        """Copy the named files, if they exist, to the remote storage, in this order.

        Raises:
            StorageError: it cannot be written.
        """
        self.place.send(*names)

    def leave(self) -> None:
        """Remove from this machine the files of a run that are also in the remote storage."""
        if self.place.remote:
            for name in (CHECKPOINT, SCORES):
                (self.path / name).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the checkpoint and its report, on this machine and in the remote storage.

        Raises:
            StorageError: the storage cannot be reached.
        """
        for name in reversed(_STATE):
            (self.path / name).unlink(missing_ok=True)
            (self.place / name).remove()

    def _has_state(self) -> bool:
        return all((self.path / name).exists() for name in _STATE)

    def _pull(self) -> None:
        for name in reversed(_STATE):
            (self.path / name).unlink(missing_ok=True)
        self.place.bring(*_STATE)

    def _remote_step(self) -> int:
        """The step of the report beside the remote checkpoint; 0 for none."""
        if not self.place.remote or not set(_STATE) <= set(self.place.names()):
            return 0
        text = (self.place / REPORT).read()
        return _reported(text).step if text else 0


def _reported(text: str | bytes) -> Reported:
    result = result_of(loads(text))
    assert isinstance(result, Reported)  # nothing else is saved
    return result
