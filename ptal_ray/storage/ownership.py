"""What of a user's files may be replaced: what this package wrote, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.errors import ConfigError, DataError

EXISTS = "already exists; pass --replace to replace it"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of folder that this package writes.

    Args:
        name: of it in messages, such as "feature store".
        has: whether it may hold a file of this name.
        known: whether a folder is one, by what lies in it.
    """

    name: str
    has: Callable[[str], bool]
    known: Callable[[Path], bool]


def foreign(path: Path, kind: Kind) -> str:
    """Why the folder at `path` must stay: it is no whole one of `kind`; "" where it may go.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_symlink():
        return f"is a link, not a {kind.name}"
    if not path.is_dir():
        return f"is a file, not a {kind.name}"
    if not kind.known(path):
        return f"is a folder, but not a {kind.name}"
    with os.scandir(path) as entries:
        others = sorted(
            e.name for e in entries if not (kind.has(e.name) and e.is_file(follow_symlinks=False))
        )
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"holds {others[0]!r}{more}, which is not part of a {kind.name}" if others else ""


def check_target(path: Path, kind: Kind, *, replace: bool) -> None:
    """Finds out whether a folder of `kind` can be written to `path`.

    Args:
        path: the folder to be.
        kind: of folder.
        replace: whether one of `kind` that lies there gives way.

    Raises:
        DataError: something else lies there, or one of `kind` and `replace` is off.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return
    if reason := foreign(path, kind):
        raise DataError(
            f"{path}: {reason}; it is not replaced; move it elsewhere or choose another"
        )
    if not replace:
        raise DataError(f"{path}: {EXISTS}")


def check_files(flag: str, folder: Path, files: Mapping[str, Callable[[Path], bool]]) -> None:
    """Finds out whether files of these names can be written to `folder`, which may hold others.

    Args:
        flag: that named the folder.
        folder: where they go.
        files: name -> whether a file of it is one that the same command wrote earlier.

    Raises:
        ConfigError: one there is something else.
    """
    for name, known in files.items():
        path = folder / name
        if os.path.lexists(path) and not _is_plain(path, known):
            raise ConfigError(
                f"{flag} {folder}: {name} there was not written by this command and is not "
                "replaced; move it elsewhere or choose another folder"
            )


def check_file(path: Path, known: Callable[[Path], bool], *, replace: bool) -> None:
    """Finds out whether one file can be written to `path`.

    Args:
        path: the file to be.
        known: whether a file is one that the same command wrote earlier.
        replace: whether such a file gives way.

    Raises:
        DataError: something else lies there, or such a file and `replace` is off.
    """
    if not os.path.lexists(path):
        return
    if not _is_plain(path, known):
        raise DataError(
            f"{path}: was not written by this command and is not replaced; move it elsewhere or "
            "choose another file"
        )
    if not replace:
        raise DataError(f"{path}: {EXISTS}")


def _is_plain(path: Path, known: Callable[[Path], bool]) -> bool:
    """Whether a file itself, no link to one, lies there and is `known`."""
    return path.is_file() and not path.is_symlink() and known(path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is none or the file is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def begins_with(path: Path, text: str) -> bool:
    """Whether a file begins with `text`."""
    start = text.encode()
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False
