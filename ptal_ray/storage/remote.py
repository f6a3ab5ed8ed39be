"""Files below an s3:// address, read and written whole.

Arrow's own client does the work, so nothing else is needed. It finds credentials where all AWS
tools do, and takes AWS_ENDPOINT_URL for another service than AWS, also a plain http one.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from ptal_ray.errors import ConfigError, StorageError
from ptal_ray.storage.user_directories import home

SCHEME = "s3://"
CHUNK_BYTES = 16 << 20
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Remote:
    """The address of a file or a folder in an object store; S3 shows a file whole or not at all.

    Args:
        bucket: its name.
        key: below it, without slashes at its ends; "" for the bucket itself.

    Every method raises StorageError where the store does not answer or refuses.
    """

    bucket: str
    key: str

    @staticmethod
    def parse(text: str) -> Remote:
        """The address `s3://bucket/prefix`.

        Raises:
            ConfigError: it is none; credentials belong in the environment and are not repeated.
        """
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        if "@" in text or "?" in text:
            raise ConfigError(
                "s3://...: an address with credentials or options in it is refused; write "
                "s3://bucket/prefix and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_ENDPOINT_URL"
            )
        parts = [part for part in key.split("/") if part]
        if not is_remote(text) or not bucket or {".", ".."} & set(parts):
            raise ConfigError(f"{text}: not an address; write s3://bucket/prefix")
        return Remote(bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.bucket, f"{self.key}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder it lies in."""
        return Remote(self.bucket, self.key.rpartition("/")[0])

    @property
    def cache(self) -> Path:
        """The folder of this machine for copies of what lies at this address."""
        return cache_root() / ".remote" / hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def read(self) -> bytes | None:
        """The content of this file, or None where there is none."""
        with self._named("read"):
            try:
                with self._files.open_input_file(self._path) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, data: bytes) -> None:
        """Replaces the content of this file."""
        self._send(pa.py_buffer(data))

    def pull(self, path: Path) -> bool:
        """Copies this file to `path`, which appears whole or not at all; False: there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with beside.open("wb") as file:
                for chunk in self._chunks():
                    file.write(chunk)
            os.replace(beside, path)
        except FileNotFoundError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def push(self, path: Path) -> None:
        """Copies the file `path` to this address."""
        with pa.memory_map(str(path)) as file:
            self._send(file.read_buffer())

    def remove(self) -> None:
        """Removes this file, if it is there."""
        with self._named("removed"):
            try:
                self._files.delete_file(self._path)
            except FileNotFoundError:
                return

    def names(self, *, below: bool = True) -> list[str]:
        """Files below this folder, relative to it; with `below` off, what lies right in it."""
        with self._named("listed"):
            chosen = fs.FileSelector(self._path, allow_not_found=True, recursive=below)
            found = self._files.get_file_info(chosen)
        start = len(self._path) + 1
        return [i.path[start:] for i in found if not below or i.type == fs.FileType.File]

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    @property
    def _files(self) -> Any:
        where = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", *_SECRETS)
        return _file_system(self.bucket, tuple(os.environ.get(name, "") for name in where))

    def _chunks(self) -> Iterator[bytes]:
        """The content of this file, checked to be all of it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._named("read"):
            file = self._files.open_input_file(self._path)
        with file:
            left = int(file.size())
            while left > 0:
                with self._named("read"):
                    if not (chunk := file.read(min(left, CHUNK_BYTES))):
                        raise OSError(f"{left} bytes are missing at its end")
                left -= len(chunk)
                yield chunk

    def _send(self, data: Any) -> None:
        with self._named("written"):
            stream = self._files.open_output_stream(self._path)
            stream.write(data)
            stream.close()  # not left to a `with`, which would keep the part before an error

    @contextmanager
    def _named(self, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self}: cannot be {done} ({_reason(error)}); check the address, AWS_ENDPOINT_URL "
                "and the credentials in the environment"
            ) from error


def is_remote(text: str) -> bool:
    """Whether a text names a place in an object store, not a path.

    Raises:
        ConfigError: it names a place of another kind.
    """
    scheme, mark, _ = text.partition(":/")
    if mark and scheme.isalnum() and not text.startswith(SCHEME):
        raise ConfigError(f"{text}: write a path or s3://bucket/prefix; nothing else is known")
    return text.startswith(SCHEME)


def cache_root() -> Path:
    """Where copies lie on this machine: $PTAL_CACHE, else the user's cache directory.

    Raises:
        ConfigError: the user has no home directory.
    """
    if given := os.environ.get("PTAL_CACHE"):
        return Path(given).absolute()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "ptal_ray"
    return home("PTAL_DATA or PTAL_CACHE") / ".cache" / "ptal_ray"


@cache
def _file_system(bucket: str, environment: tuple[str, ...]) -> Any:
    """Arrow's client; a small file is one request with a delayed open."""
    return fs.FileSystem.from_uri(f"{SCHEME}{bucket}?allow_delayed_open=true")[0]


def _reason(error: OSError) -> str:
    """What Arrow says, on one line and without credentials."""
    text = " ".join(str(error).rpartition("AWS Error ")[2].split())
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text[:300]
