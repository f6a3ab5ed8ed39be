"""A directory that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptal_ray.errors import DataError

_LOCK = "lock"


@contextmanager
def staged(path: Path, *, replace: bool, wait: bool) -> Iterator[Path]:
    """A hidden directory beside `path` to write into; it becomes `path` when the block ends well.

    It is removed when the block raises, and by the next writer where a process was killed. One
    process writes at a time: a lock that dies with its process decides.

    Args:
        path: the directory to be.
        replace: whether an existing `path` gives way.
        wait: whether another writer is waited for, or is an error.

    Raises:
        DataError: `path` exists and `replace` is off, another process writes it, or it cannot be
            written: the place is no folder, not writable or full.
    """
    try:
        with _staged(path, replace, wait) as work:
            yield work
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place or make "
            "room"
        ) from error


@contextmanager
def _staged(path: Path, replace: bool, wait: bool) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    work, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    handle = _claim(work, wait)
    try:
        _restore(path, old)
        check_free(path, replace)
        _empty(work)
        yield work
        if path.exists():
            os.rename(path, old)
        os.rename(work, path)
        (path / _LOCK).unlink()
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(handle)


def check_free(path: Path, replace: bool) -> None:
    """Makes sure that a directory may be written.

    Raises:
        DataError: it exists and may not be replaced.
    """
    if path.exists() and not replace:
        raise DataError(f"{path}: exists already; pass --replace to write it anew")


def _claim(work: Path, wait: bool) -> int:
    """A descriptor that holds the lock inside `work`, which is made where it is missing."""
    while True:
        work.mkdir(exist_ok=True)
        try:
            handle = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:
            continue  # its writer has just renamed or removed it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is(handle, work / _LOCK):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            target = work.parent / work.name[1:].removesuffix(".partial")
            raise DataError(f"{target}: another process is writing it; wait for it") from error
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`: its writer may have moved it away."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _restore(path: Path, old: Path) -> None:
    """Undoes a replacement that was killed between its two renames."""
    if old.exists() and not path.exists():
        os.rename(old, path)
    shutil.rmtree(old, ignore_errors=True)


def _empty(work: Path) -> None:
    for left in work.iterdir():
        if left.name != _LOCK:
            left.unlink()
