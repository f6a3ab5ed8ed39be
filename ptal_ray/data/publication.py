"""Feature stores put at an s3:// address, in the place of an older one or of nothing.

The tables of a store lie in a folder named by its content hash, and store.json, written last and in
one step, says which store is there. So a process that is killed leaves the old one or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.store_files import DESCRIPTION, STORE, STORE_FILES, describes_store
from ptal_ray.errors import DataError, StorageError
from ptal_ray.storage.remote import Remote

_WORK = ".upload-"
_TABLE = re.compile(rf"[0-9a-f]{{16}}/({'|'.join(map(re.escape, STORE_FILES))})")


def tables(source: Remote, content_hash: str) -> Remote:
    """The folder of the tables of a store: that of its hash, or that of store.json itself.

    Raises:
        StorageError: it cannot be read.
    """
    own = source / content_hash[:16]
    return own if own.names() else source


@contextmanager
def published(target: Remote, *, replace: bool) -> Iterator[Path]:
    """A path for a new store on this machine; it goes to `target` when the block ends well.

    Raises:
        DataError: a store lies there already and `replace` is off, something else lies there, or
            it cannot be written.
    """
    try:
        _check(target, replace)
        with _workshop(target.cache) as folder:
            path = folder / target.name
            yield path
            before = _check(target, replace)  # others may have written there meanwhile
            _send(FeatureStore.open(path), target, before)
    except StorageError as error:
        raise DataError(str(error)) from error


def _send(store: FeatureStore, target: Remote, before: list[str]) -> None:
    """Sends a store to `target`, where the files `before` are; afterwards they are gone."""
    mine = store.info.content_hash[:16]
    sent = [f"{mine}/{name}" for name in STORE_FILES]
    try:
        for name in STORE_FILES:
            (target / mine / name).push(store.path / name)
        (target / DESCRIPTION).push(store.path / DESCRIPTION)
    except BaseException:
        if not _hash(target).startswith(mine):
            _remove(target, set(sent) - set(before))
        raise
    if _hash(target).startswith(mine):  # else another process has just put its store here
        _remove(target, set(before) - {DESCRIPTION, *sent})


def _remove(target: Remote, names: Iterable[str]) -> None:
    for name in names:
        (target / name).remove()


def _hash(target: Remote) -> str:
    info = _described(target).get("info")
    return str(info.get("content_hash", "")) if isinstance(info, dict) else ""


def _check(target: Remote, replace: bool) -> list[str]:
    """The files at `target`, which are those of a store, or what a killed process left of one.

    Raises:
        DataError: there are others, or a store and `replace` is off.
        StorageError: it cannot be read.
    """
    names = target.names()
    there = set(names)
    others = sorted(name for name in there if not (STORE.has(name) or _TABLE.fullmatch(name)))
    whole = there.issuperset(STORE_FILES) or describes_store(_described(target))
    if not others and not whole:
        others = sorted(name for name in there if not _TABLE.fullmatch(name))
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise DataError(
            f"{target}: holds {others[0]!r}{more}, not a file of a feature store, and is not "
            "replaced; choose another name or PTAL_DATA"
        )
    if DESCRIPTION in there and not replace:
        raise DataError(f"{target}: already exists; pass --replace to replace it")
    return names


def _described(target: Remote) -> dict[str, Any]:
    """store.json at `target`; {} where there is none, or none of a store."""
    try:
        found = json.loads((target / DESCRIPTION).read() or b"")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _workshop(cache: Path) -> Iterator[Path]:
    """A new folder in `cache`, removed at the end; those of killed processes are removed now."""
    cache.mkdir(parents=True, exist_ok=True)
    with _held(cache, wait=True):
        for left in cache.glob(f"{_WORK}*"):
            with _held(left, wait=False) as free:
                if free:
                    shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=_WORK, dir=cache))
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def _held(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock on a folder, which ends with the process; yields whether it was free."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
