"""Feature stores that lie at an s3:// address, and this machine's copies of them.

A copy lies in a folder named by the content hash, so a store that changed is another copy, and one
in use is never written over.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ptal_ray.data.publication import tables
from ptal_ray.data.staging import staged
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.store_files import DESCRIPTION, STORE, STORE_FILES
from ptal_ray.errors import DataError, StorageError
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.lock import locked


def local_copy(source: Folder, content_hash: str) -> Path:
    """The store at `source` on this machine: copied by the first process, while others wait.

    A copy is kept once its content hash was computed and is right. One that cannot be opened any
    more is replaced.

    Args:
        source: the folder of the store.
        content_hash: that it must have.

    Raises:
        DataError: there is no store, its content is another one or damaged, or it cannot be read.
    """
    path = source.here / f"{source.name}-{content_hash[:16]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), wait=True):
            if not _opens(path):
                _copy(source, path, content_hash)
    except StorageError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{source.here}: cannot be written ({error}); set PTAL_CACHE") from error
    return path


def remote_hash(source: Folder) -> str:
    """The content hash of the store at `source`; "" where there is none.

    Raises:
        DataError: its store.json is damaged.
        StorageError: it cannot be read.
    """
    text = (source / DESCRIPTION).read()
    if text is None:
        return ""
    try:
        found = str(json.loads(text)["info"]["content_hash"])
    except (ValueError, KeyError, TypeError):
        found = ""
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise DataError(f"{source}/{DESCRIPTION}: damaged; import it again with --replace")
    return found


def _opens(path: Path) -> bool:
    try:
        FeatureStore.open(path)
    except DataError:
        return False
    return True


def _copy(source: Folder, path: Path, content_hash: str) -> None:
    places = dict.fromkeys(STORE_FILES, tables(source, content_hash)) | {DESCRIPTION: source}
    with staged(path, STORE, replace=True, wait=True) as work:
        for name, place in places.items():
            if not (place / name).pull(work / name):
                raise DataError(f"{place}/{name}: missing; import the store again")
        store = FeatureStore.open(work)
        if store.info.content_hash != content_hash:
            raise DataError(
                f"{source}: its content is {store.info.content_hash[:12]}, not "
                f"{content_hash[:12]}; it was replaced since; start again"
            )
        try:
            store.verify()
        except DataError as error:
            raise DataError(
                f"{source}: the local copy is corrupt and was deleted; try again, or import the "
                "store again"
            ) from error
