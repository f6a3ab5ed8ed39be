"""An S3 server to test against: moto on a free port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

BUCKET = "shelf"
SECRET = "planted-secret-key-0123456789"
SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class ObjectStore:
    """A running server with one empty bucket; its log names every request."""

    def __init__(self, log: Path, port: int) -> None:
        self.log, self.port = log, port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "planted-key-id",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def count(self, request: str) -> int:
        """How often a request such as "GET /shelf/x" was answered well."""
        lines = self.log.read_text().splitlines()
        return sum(f"{request} HTTP" in line and '" 20' in line for line in lines)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A server for the time of a `with` block, which also sets this process's environment."""
    log = folder / "requests.log"
    command = [sys.executable, "-c", SERVE]
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        ) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        found = ObjectStore(log, int(process.stdout.readline()))
        for name, value in found.environment.items():
            patch.setenv(name, value)
        fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")[0].create_dir(BUCKET)
        yield found
        process.stdin.close()


def elsewhere(cache: Path) -> dict[str, str]:
    """The environment of a process on another machine."""
    return os.environ | {"PTAL_CACHE": str(cache)}
