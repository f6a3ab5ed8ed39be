"""Files that appear whole or not at all, and folders that do not stay without any."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write; it becomes `path` when the block ends well.

    Args:
        path: the file to be; one that lies there is replaced.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Writes a file, and the folder that it lies in where that is missing.

    Args:
        path: the file to be; one that lies there is replaced.
        content: a text is written as UTF-8.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def folder_made(folder: Path) -> Iterator[None]:
    """Makes a folder where it is missing; it goes again where the block fails and left it empty.

    Raises:
        OSError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):  # it holds something by now
                place.rmdir()
        raise
