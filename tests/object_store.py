"""An S3 server to test against: moto on a free port of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "shelf"
SECRET = "planted-secret-key-0123456789"
SERVE = """
import sys, urllib.request
from moto.server import ThreadedMotoServer
host, bucket = sys.argv[1:]
server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/{bucket}", method="PUT"))
print(port, flush=True)
sys.stdin.read()
"""


class ObjectStore:
    """A running server with one empty bucket; its log names every request."""

    def __init__(self, log: Path, host: str, port: int) -> None:
        self.log, self.port = log, port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "planted-key-id",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def count(self, request: str) -> int:
        """How often a request such as "GET /shelf/x" was answered well."""
        lines = self.log.read_text().splitlines()
        return sum(f"{request} HTTP" in line and '" 20' in line for line in lines)


@contextmanager
def object_store(
    folder: Path, host: str = "127.0.0.1", inside: Sequence[str] = ()
) -> Iterator[ObjectStore]:
    """A server for the time of a `with` block, which also sets this process's environment.

    Args:
        folder: its log lies there.
        host: address to listen at.
        inside: what a command begins with to run where `host` is.
    """
    log = folder / "requests.log"
    command = [*inside, sys.executable, "-c", SERVE, host, BUCKET]
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        ) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        found = ObjectStore(log, host, int(process.stdout.readline()))
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found
        process.stdin.close()
