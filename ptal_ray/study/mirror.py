"""Mirrors the files of a study's driver to a remote storage while it runs, and downloads them.

Runs upload their own files; see `run_folder`. Only one driver may run a study; its name is in
driver.json. Two drivers that start within the same second on two machines can both pass this check;
the one that later finds the other's name in the file stops. A conditional write (`If-None-Match:
*`) would prevent this, but Arrow's client, up to version 25, cannot send it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from ptal_ray.errors import ConfigError, StorageError
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.ownership import parsed_object
from ptal_ray.study.run_folder import SCORES
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView

LOG = "events.jsonl"
BESIDE = ("study.json", "optuna.journal", "mlflow_state.json")
DRIVER = "driver.json"
PAUSE_S = 1.0  # between checks of the files
BEAT_S = 10.0  # between heartbeats
SILENCE_S = 25.0  # a driver on another machine without a heartbeat for so long is dead
SCORED = 64  # trials
_FINAL = re.compile(r"final/\w+/detections\.json")


def check_out(remote: Folder) -> Path:
    """The directory of a study on this machine, in its newest state.

    The newest state is at `remote`, unless this machine has a directory with more events, because a
    killed driver could not upload its last ones.

    Raises:
        ConfigError: there is no study, or both continued differently from the same event.
        StorageError: it cannot be read.
    """
    directory = remote.here
    log = directory / LOG
    here = _whole_lines(log.read_bytes() if log.exists() else b"")
    there = _whole_lines((remote / LOG).read() or b"")
    if (directory / "study.json").exists() and here.startswith(there):
        return directory
    if not there.startswith(here):
        raise ConfigError(
            f"{remote}: the study was continued both there and in {directory}; "
            f"remove {directory} to continue the study at the address"
        )
    if not (remote / "study.json").pull(directory / "study.json"):
        raise ConfigError(f"{remote}: there is no study (study.json is missing)")
    for name in (*BESIDE, *filter(_FINAL.fullmatch, remote.names())):
        if not (remote / name).pull(directory / name):
            (directory / name).unlink(missing_ok=True)
    (remote / LOG).pull(log)  # last, because it marks the directory as complete
    return directory


def bring_scores(study: Study) -> None:
    """Downloads the scores that the report of a study decodes again: those of at most `SCORED`
    complete trials, of the recommended arm and the best others first. If a study has a storage,
    runs leave none on their machine.

    Raises:
        StorageError, OSError: the storage cannot be read, or the disk not be written.
    """
    if not study.remote:
        return
    view = StudyView.read(study.directory)
    said, top = view.recommended, view.best
    best = [said.arm, *(int(row["arm"]) for row in said.arms)] if said else []
    done = [t for t in view.trials if t.state == "complete"]
    done.sort(key=lambda t: (t is not top, best.index(t.arm) if t.arm in best else len(best)))
    for trial in done[:SCORED]:
        folder = study.run_folder(trial.number).place
        if not (folder.here / SCORES).exists():
            folder.bring(SCORES)


class Mirror:
    """Keeps the files of a study's driver up to date at its address; does nothing without one.

    Args:
        study: the study that this process runs.

    `lost` is set when another driver has taken over the study.
    """

    def __init__(self, study: Study) -> None:
        self._directory = study.directory
        self._place = study.place
        self._me: dict[str, Any] = {
            "host": socket.gethostname(), "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }  # fmt: skip
        self._beats, self._beat_at = 0, 0.0
        self._sent: dict[str, tuple[int, int]] = {}
        self._trouble = ""
        self.lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def start(self) -> None:
        """Register as the driver of the study and start to mirror it.

        Raises:
            ConfigError: another process runs this study, or the storage cannot be used.
        """
        if not self._place.remote:
            return
        try:
            other = (self._place / DRIVER).read()
            if other is not None and self._lives(other):
                raise ConfigError(
                    f"{self._place}: another process runs this study ({_who(other)}); wait for it "
                    "or stop it"
                )
            self._sign()
        except StorageError as error:
            raise ConfigError(f"--storage: {error}") from error
        self._thread.start()

    def close(self) -> str:
        """Upload the rest and end; returns a line about files that could not be uploaded, or ""."""
        if not self._place.remote or self._thread.ident is None:  # it was never started
            return ""
        self._stop.set()
        self._thread.join()
        if not self.lost:
            self._try()
        if not self._trouble:
            self._leave()
        if self.lost:
            return f"stopped: {self._place}: {self._trouble}"
        if self._trouble:
            return (
                f"not all of the study was uploaded to {self._place} ({self._trouble}); the rest "
                f"is in {self._directory}; --resume {self._place} on this machine uploads it"
            )
        return ""

    def _leave(self) -> None:
        try:
            (self._place / DRIVER).remove()
        except StorageError as error:
            self._trouble = str(error)

    def _follow(self) -> None:
        while not self._stop.is_set() and not self.lost:
            began = time.monotonic()
            self._try()
            took = time.monotonic() - began
            # A long log is not sent at every check, but heartbeats are.
            self._stop.wait(min(max(PAUSE_S, 4 * took), BEAT_S / 2))

    def _try(self) -> None:
        """One round; if the storage is not available, the next round retries."""
        try:
            if time.monotonic() >= self._beat_at:
                self._beat()
            self._send()
            self._trouble = ""
        except (StorageError, OSError) as error:
            self._trouble = str(error)

    def _send(self) -> None:
        """Upload changed files. The log is uploaded before the files derived from it, but read
        after them."""
        files = {name: data for name in (*BESIDE, LOG) if (data := self._changed(name))}
        for name in sorted(files, key=lambda name: name != LOG):
            (self._place / name).write(files[name][0])
            self._sent[name] = files[name][1]

    def _changed(self, name: str) -> tuple[bytes, tuple[int, int]] | None:
        path = self._directory / name
        if not (self._directory / LOG).exists() or not path.exists():
            return None
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        return None if self._sent.get(name) == stamp else (path.read_bytes(), stamp)

    def _beat(self) -> None:
        found = (self._place / DRIVER).read()
        if found is not None and not self._mine(found):
            self.lost = True
            raise StorageError(f"another driver now runs this study: {_who(found)}")
        self._sign()

    def _sign(self) -> None:
        self._beats += 1
        self._beat_at = time.monotonic() + BEAT_S
        (self._place / DRIVER).write(json.dumps(self._me | {"beat": self._beats}).encode())

    def _mine(self, text: bytes) -> bool:
        found = parsed_object(text)
        return all(found.get(key) == value for key, value in self._me.items())

    def _lives(self, text: bytes) -> bool:
        """Whether the driver that wrote `text` still runs; waits for a heartbeat if it is
        elsewhere."""
        found = parsed_object(text)
        if found.get("host") == self._me["host"]:
            return _runs(int(found.get("pid", 0)), found.get("started"))
        until = time.monotonic() + SILENCE_S
        while time.monotonic() < until:
            time.sleep(PAUSE_S)
            if (now := (self._place / DRIVER).read()) != text:
                return now is not None
        return False


def _runs(pid: int, started: Any) -> bool:
    try:
        return bool(psutil.Process(pid).create_time() == started)
    except psutil.Error:
        return False


def _who(text: bytes) -> str:
    found = parsed_object(text)
    return f"process {found.get('pid')} on {found.get('host')}"


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
