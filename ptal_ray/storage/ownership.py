"""Checks that only files written by this package are replaced."""

from __future__ import annotations

import json
import os
import tempfile
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
        name: its name in messages, such as "feature store".
        has: whether it may contain a file with this name.
        known: whether a folder is of this kind, by its content.
    """

    name: str
    has: Callable[[str], bool]
    known: Callable[[Path], bool]


def foreign(path: Path, kind: Kind) -> str:
    """Why the folder at `path` must not be removed: it is not of `kind`; "" if it may be.

    Raises:
        OSError: the folder cannot be read.
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
    """Check that a folder of `kind` can be written to `path`.

    Args:
        path: the folder to write.
        kind: the kind of folder.
        replace: whether an existing folder of `kind` may be replaced.

    Raises:
        DataError: `path` has other content, or is a folder of `kind` and `replace` is False.
        OSError: the folder cannot be read.
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
    """Check that files with these names can be written to `folder`, which may have other files.

    Args:
        flag: the flag with the folder.
        folder: the folder to write to.
        files: name -> a function that tells whether an existing file was written by the same
            command.

    Raises:
        ConfigError: an existing file was not.
    """
    for name, known in files.items():
        path = folder / name
        if os.path.lexists(path) and not _is_plain(path, known):
            raise ConfigError(
                f"{flag} {folder}: {name} there was not written by this command and is not "
                "replaced; move it elsewhere or choose another folder"
            )


def check_writable(flag: str, path: Path, *, folder: bool = False) -> None:
    """Check, before long work, that `path` can be written; nothing is left behind.

    Args:
        flag: the flag with the path.
        path: the file to write, or the folder to write files in; folders may be missing.
        folder: whether it is a folder.

    Raises:
        ConfigError: the folder, or the one to create it in, cannot be written to.
    """
    whole = path.absolute()
    places = (whole, *whole.parents) if folder else whole.parents
    there = next(place for place in places if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(
            f"{flag} {path}: {there} cannot be written ({error.strerror}); choose another folder"
        ) from error


def check_file(path: Path, known: Callable[[Path], bool], *, replace: bool) -> None:
    """Check that one file can be written to `path`.

    Args:
        path: the file to write.
        known: whether a file was written by the same command.
        replace: whether such a file may be replaced.

    Raises:
        DataError: another file exists, or such a file and `replace` is False.
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
    """Whether `path` is a file, not a link, and is `known`."""
    return path.is_file() and not path.is_symlink() and known(path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} if the file is missing or has no object."""
    try:
        return parsed_object(path.read_bytes())
    except OSError:
        return {}


def parsed_object(content: bytes) -> dict[str, Any]:
    """The JSON object in the content of a file; {} if it is not one."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def begins_with(path: Path, text: str) -> bool:
    """Whether a file starts with `text`."""
    start = text.encode()
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False
