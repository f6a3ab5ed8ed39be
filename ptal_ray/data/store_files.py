"""The files of a feature store, and how a folder is recognised as one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ptal_ray.data.tables import TABLES
from ptal_ray.errors import DataError
from ptal_ray.storage.ownership import Kind, read_object

DESCRIPTION = "store.json"
STORE_FILES = ("features.arrow", *(f"{name}.arrow" for name in TABLES))
SCHEMA_VERSION = 2  # version 1 has no stride_s and offset_s: all its videos share one grid
_BESIDE = re.compile(r"text_[0-9a-f]{16}(\.npy|\w*\.tmp)")  # embeddings of the class names


def _is_store(path: Path) -> bool:
    """Whether a folder is a store of any schema version, or a damaged one."""
    return describes_store(read_object(path / DESCRIPTION)) or all(
        (path / name).is_file() for name in STORE_FILES
    )


def describes_store(description: dict[str, Any]) -> bool:
    """Whether a JSON object is the store.json of a store, of any schema version."""
    info = description.get("info")
    return isinstance(info, dict) and "content_hash" in info and "schema_version" in description


STORE = Kind(
    name="feature store",
    has=lambda name: name in (DESCRIPTION, *STORE_FILES) or bool(_BESIDE.fullmatch(name)),
    known=_is_store,
)


def read_description(path: Path) -> dict[str, Any]:
    """store.json of a store that this version can read.

    Raises:
        DataError: it is missing, damaged, or of another schema version.
    """
    try:
        description: dict[str, Any] = json.loads((path / DESCRIPTION).read_text("utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: not a feature store (store.json: {error.strerror}); import it again"
        ) from error
    except ValueError as error:
        raise DataError(f"{path / DESCRIPTION}: damaged; import it again") from error
    if not isinstance(description, dict):
        raise DataError(f"{path / DESCRIPTION}: damaged; import it again")
    if (found := description.get("schema_version")) not in (1, SCHEMA_VERSION):
        raise DataError(
            f"{path}: schema version {found}, this version reads 1 to {SCHEMA_VERSION}; import it "
            "again"
        )
    return description
