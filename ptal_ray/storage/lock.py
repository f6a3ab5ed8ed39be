"""A lock among processes: every lock of this package on a file is made here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock among processes, which ends with the process; yields whether it was free.

    Args:
        path: a file that is made for this and stays; its folder exists.
        wait: wait for it.

    Raises:
        OSError: the file cannot be made, or is a link.
    """
    # Not of one thread: what takes the lock may hand it to a thread that gives it back.
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
