"""The files of a feature store, and how a folder is recognised as one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ptal_ray.data.tables import TABLES
from ptal_ray.storage.ownership import Kind, read_object

DESCRIPTION = "store.json"
STORE_FILES = ("features.arrow", *(f"{name}.arrow" for name in TABLES))
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
