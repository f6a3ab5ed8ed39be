"""Files that survive a loss of power: written to the disk while they grow, and before a rename."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

STEP = 1 << 26  # bytes after which the disk is given work; the system alone waits for gigabytes


@contextmanager
def early_writes(descriptor: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of bytes that were added to an open file.

    A thread then writes the file to the disk while more of it is made.

    Args:
        descriptor: of the file, which may be closed before the block ends.

    Raises:
        OSError: the file cannot be brought to the disk.
    """
    own, added = os.dup(descriptor), 0
    running: list[Future[None]] = []

    def grown(size: int) -> None:
        """Count bytes, and have them written once there are enough and the disk is free."""
        nonlocal added
        added += size
        if added >= STEP and (not running or running[-1].done()):
            added = 0
            running.append(pool.submit(os.fdatasync, own))

    try:
        with ThreadPoolExecutor(1) as pool:
            yield grown
        for future in running:
            future.result()
    finally:
        os.close(own)


def flush(folder: Path) -> None:
    """Returns when all files below a folder, and their names, are on the disk.

    Raises:
        OSError: they cannot be brought there.
    """
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
