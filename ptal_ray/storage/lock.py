"""Locks between processes; all file locks of this package are made here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock between processes; it ends with the process. Yields whether it was free.

    Args:
        path: the lock file, which is created and not removed; its folder must exist.
        wait: whether to wait until it is free.

    Raises:
        OSError: the file cannot be created, or is a link.
    """
    # Not thread-local: another thread may release the lock.
    lock = FileLock(path, blocking=wait, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
