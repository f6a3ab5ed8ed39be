"""Feature stores uploaded to an s3:// address; an older store there can be replaced.

The tables of a store are in a folder named by its content hash. store.json is written last and
atomically, and names the current store, so after a kill either the old or the new store is there.
Two imports with one name are not locked: an object store has no locks, and Arrow's client has no
conditional writes. Each uploads a complete store; the last one to write store.json wins.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.store_files import DESCRIPTION, STORE, STORE_FILES, describes_store
from ptal_ray.errors import DataError, StorageError
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.lock import locked
from ptal_ray.storage.ownership import EXISTS, parsed_object

_WORK, _LOCK = ".upload-", ".lock"
_TABLE = re.compile(rf"[0-9a-f]{{16}}/({'|'.join(map(re.escape, STORE_FILES))})")


def tables(source: Folder, content_hash: str) -> Folder:
    """The folder of the tables of a store: that of its hash, or that of store.json itself.

    Raises:
        StorageError: it cannot be read.
    """
    own = source / content_hash[:16]
    return own if own.names() else source


@contextmanager
def published(target: Folder, *, replace: bool) -> Iterator[Path]:
    """A path for a new store on this machine, which is uploaded to `target` if the block succeeds.

    Raises:
        DataError: `target` has a store and `replace` is off, has other files, or cannot be
            written.
    """
    try:
        _check(target, replace)
        with _workshop(target.here) as folder:
            path = folder / target.name
            yield path
            before = _check(target, replace)  # others may have written there meanwhile
            _send(FeatureStore.open(path), target, before)
    except StorageError as error:
        raise DataError(str(error)) from error


def _send(store: FeatureStore, target: Folder, before: list[str]) -> None:
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


def _remove(target: Folder, names: Iterable[str]) -> None:
    for name in names:
        (target / name).remove()


def _hash(target: Folder) -> str:
    info = _described(target).get("info")
    return str(info.get("content_hash", "")) if isinstance(info, dict) else ""


def _check(target: Folder, replace: bool) -> list[str]:
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
            f"{target}: contains {others[0]!r}{more}, which is not part of a feature store; it is "
            "not replaced; choose another name or set PTAL_DATA to another place"
        )
    if DESCRIPTION in there and not replace:
        raise DataError(f"{target}: {EXISTS}")
    return names


def _described(target: Folder) -> dict[str, Any]:
    """store.json at `target`; {} where there is none, or none of a store."""
    return parsed_object((target / DESCRIPTION).read() or b"")


@contextmanager
def _workshop(cache: Path) -> Iterator[Path]:
    """A new folder in `cache`, removed at the end; those of killed processes are removed now.

    The lock of a folder is taken before the folder is made, and both go while it is held.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for name in sorted({left.name.removesuffix(_LOCK) for left in cache.glob(f"{_WORK}*")}):
        with _held(cache / name):
            pass
    folder = cache / f"{_WORK}{secrets.token_hex(8)}"
    with _held(folder):
        folder.mkdir()
        yield folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Removes a folder of `_workshop` at the end, and its lock; nothing where another has it."""
    lock = folder.with_name(f"{folder.name}{_LOCK}")
    with locked(lock, wait=False) as free:
        try:
            yield
        finally:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
