"""A tracking server to test against: `mlflow server` on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from functools import cache
from pathlib import Path

from conftest import HANG_S

from ptal_ray.tracking.server import Server


@cache
def fresh_database() -> bytes:
    """An SQLite file with MLflow's tables, which take seconds to make."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        Server(f"sqlite:///{path}")
        return path.read_bytes()


class Service:
    """One server; it can be stopped and started again.

    Args:
        folder: holds its artifacts and its log.
        backend: URI of its database; None for an SQLite file in the folder.
    """

    def __init__(self, folder, backend=None):
        self.folder, self.backend = folder, backend or f"sqlite:///{folder}/mlflow.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1",
            "--artifacts-destination", f"{self.folder}/artifacts",
            "--host", "127.0.0.1", "--port", str(self.port),
        ]  # fmt: skip
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_BACKEND_STORE_URI": self.backend,  # no password on the command line
        }  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, start_new_session=True,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until = time.monotonic() + HANG_S
        while self.process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            time.sleep(0.1)
        self.stop()
        raise AssertionError("it did not start:\n" + (self.folder / "server.log").read_text())

    def stop(self):
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # it and its one worker
            self.process.wait()
            self.process = None
