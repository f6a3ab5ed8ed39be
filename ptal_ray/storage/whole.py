"""Atomic writes of files, and folders that are removed if nothing was written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write to; it is renamed to `path` if the block succeeds.

    Args:
        path: the file to write; an existing one is replaced.

    Raises:
        OSError: it cannot be written; no partial file remains.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file, and create its folder if it is missing.

    Args:
        path: the file to write; an existing one is replaced.
        content: a text is written as UTF-8.

    Raises:
        OSError: it cannot be written; no partial file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def folder_made(folder: Path) -> Iterator[None]:
    """Create a folder if it is missing; it is removed again if the block fails and it is empty.

    Raises:
        OSError: it cannot be created.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # it is no longer empty
                place.rmdir()
        raise
