"""Folders of this machine and at s3:// addresses; files are read and written atomically.

The implementation uses Arrow's file systems. The one for S3 finds credentials like all AWS tools,
and uses AWS_ENDPOINT_URL for services other than AWS, also with plain http.
"""

from __future__ import annotations

import os
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
from ptal_ray.storage.whole import whole, write_whole

SCHEME = "s3://"
CHUNK_BYTES = 16 << 20
_LOCAL = fs.LocalFileSystem()
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Folder:
    """A folder, or a file in one, of this machine or of an object store.

    In both, files are written atomically.

    Args:
        place: a path, or s3://bucket/prefix without a slash at its end.

    Every method raises StorageError if the store does not answer or denies access.
    """

    place: str

    @staticmethod
    def parse(text: str) -> Folder:
        """The folder for a user's text: a path or s3://bucket/prefix.

        Raises:
            ConfigError: it is neither. Credentials belong in the environment; messages do not
                repeat them.
        """
        scheme, mark, _ = text.partition(":/")
        if not mark or not scheme.isalnum():
            return Folder(str(Path(text)))
        if "@" in text or "?" in text:
            raise ConfigError(
                "s3://...: an address must not contain credentials or options; write "
                "s3://bucket/prefix and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_ENDPOINT_URL"
            )
        if not text.startswith(SCHEME):
            raise ConfigError(f"{text}: allowed are a path or s3://bucket/prefix")
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        parts = [part for part in key.split("/") if part]
        if not bucket or {".", ".."} & set(parts):
            raise ConfigError(f"{text}: not an address; write s3://bucket/prefix")
        return Folder(SCHEME + "/".join([bucket, *parts]))

    def __str__(self) -> str:
        return self.place

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.place.rstrip('/')}/{name}")

    @property
    def remote(self) -> bool:
        """Whether it is in an object store."""
        return self.place.startswith(SCHEME)

    @property
    def name(self) -> str:
        """The last part of the path; "" for a bucket."""
        head, _, last = self._path.rpartition("/")
        return last if head or not self.remote else ""

    @property
    def parent(self) -> Folder:
        """The parent folder; for a bucket the bucket itself."""
        if not self.remote:
            return Folder(str(Path(self.place).parent))
        return Folder(self.place.rpartition("/")[0]) if self.name else self

    @property
    def here(self) -> Path:
        """The local path: its own, or the folder for copies of the files at its address."""
        return cache_root() / ".remote" / self._path if self.remote else Path(self.place)

    def read(self) -> bytes | None:
        """The content of this file, or None if it does not exist."""
        with self._named("read"):
            try:
                with self._files.open_input_file(self._path) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, data: bytes) -> None:
        """Replace the content of this file."""
        self._put(pa.py_buffer(data))

    def pull(self, path: Path) -> bool:
        """Copy this file to `path` atomically; returns False if it does not exist."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole(path) as beside, beside.open("wb") as file:
                file.writelines(self._chunks())
        except FileNotFoundError:
            return False
        return True

    def push(self, path: Path) -> None:
        """Copy the file `path` to this address."""
        with pa.memory_map(str(path)) as file:
            self._put(file.read_buffer())

    def bring(self, *names: str) -> None:
        """Copy the named files, if they exist, from the address to `here`, in this order."""
        for name in names if self.remote else ():
            (self / name).pull(self.here / name)

    def send(self, *names: str) -> None:
        """Copy the named files, if they exist, from `here` to the address, in this order."""
        for name in names if self.remote else ():
            if (self.here / name).exists():
                (self / name).push(self.here / name)

    def remove(self) -> None:
        """Remove this file if it exists."""
        with self._named("removed"):
            try:
                self._files.delete_file(self._path)
            except FileNotFoundError:
                return

    def names(self, *, below: bool = True) -> list[str]:
        """Files below this folder, relative to it; without `below` only the direct entries."""
        with self._named("listed"):
            chosen = fs.FileSelector(self._path, allow_not_found=True, recursive=below)
            found = self._files.get_file_info(chosen)
        start = len(self._path) + 1
        return [i.path[start:] for i in found if not below or i.type == fs.FileType.File]

    @property
    def _path(self) -> str:
        """The path for Arrow's file systems."""
        return self.place.removeprefix(SCHEME)

    @property
    def _files(self) -> Any:
        if not self.remote:
            return _LOCAL
        where = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", *_SECRETS)
        bucket = self._path.partition("/")[0]
        return _object_store(bucket, tuple(os.environ.get(name, "") for name in where))

    def _chunks(self) -> Iterator[bytes]:
        """The content of this file, with a check that it is complete.

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
                        raise OSError(f"{left} bytes are missing at the end")
                left -= len(chunk)
                yield chunk

    def _put(self, data: Any) -> None:
        with self._named("written"):
            if not self.remote:  # in case a partially written file is visible
                write_whole(Path(self.place), memoryview(data))
                return
            stream = self._files.open_output_stream(self._path)
            stream.write(data)
            stream.close()  # not with `with`, which would keep a partial file after an error

    @contextmanager
    def _named(self, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            advice = "check the address, AWS_ENDPOINT_URL and the credentials in the environment"
            if not self.remote:
                advice = "check the folder and its permissions"
            raise StorageError(f"{self}: cannot be {done} ({_reason(error)}); {advice}") from error


def cache_root() -> Path:
    """The folder for copies on this machine: $PTAL_CACHE, else the user's cache directory.

    Raises:
        ConfigError: the user has no home directory.
    """
    if given := os.environ.get("PTAL_CACHE"):
        return Path(given).absolute()
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "ptal_ray"
    return home("PTAL_DATA or PTAL_CACHE") / ".cache" / "ptal_ray"


@cache
def _object_store(bucket: str, environment: tuple[str, ...]) -> Any:
    """Arrow's client; with a delayed open, a small file needs one request."""
    return fs.FileSystem.from_uri(f"{SCHEME}{bucket}?allow_delayed_open=true")[0]


def _reason(error: OSError) -> str:
    """The message of Arrow on one line, without credentials."""
    text = " ".join(str(error).rpartition("AWS Error ")[2].split())
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text[:300]
