"""A trial's state on disk: written atomically, read only with the same configuration."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from ptal_ray.errors import DataError
from ptal_ray.storage.whole import write_whole


def write_checkpoint(path: Path, config: str, state: dict[str, Any]) -> None:
    """Write `state`, of tensors and plain values, and its configuration.

    Raises:
        OSError: it cannot be written; no partial file remains.
    """
    write_tensors(path, {"config": config, **state})


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values to `path` atomically.

    Raises:
        OSError: it cannot be written; no partial file remains.
    """
    buffer = io.BytesIO()  # torch itself does not report why a file could not be written
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_checkpoint(path: Path, config: str, device: torch.device) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote, with its tensors on `device`.

    Raises:
        DataError: the file is unreadable or belongs to another configuration.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no checkpoint; start without --resume") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path}: unreadable checkpoint; delete it and train again") from error
    if not isinstance(state, dict) or state.get("config") != config:
        raise DataError(
            f"{path}: checkpoint of another configuration; repeat its flags, or delete it"
        )
    return state
