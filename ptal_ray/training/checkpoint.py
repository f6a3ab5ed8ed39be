"""A trial's state on disk: written at once or not at all, read only where it belongs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from ptal_ray.errors import DataError
from ptal_ray.storage.whole import write_whole


def write_checkpoint(path: Path, config: str, state: dict[str, Any]) -> None:
    """Writes `state`, of tensors and plain values, and the configuration it belongs to.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    write_tensors(path, {"config": config, **state})


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors and plain values to `path`, at once or not at all.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    buffer = io.BytesIO()  # torch itself does not say why a file could not be written
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_checkpoint(path: Path, config: str, device: torch.device) -> dict[str, Any]:
    """What `write_checkpoint` wrote, its tensors on `device`.

    Raises:
        DataError: the file is unreadable or belongs to another configuration.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no checkpoint; start without --resume") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path}: unreadable checkpoint; delete it and train anew") from error
    if not isinstance(state, dict) or state.get("config") != config:
        raise DataError(
            f"{path}: checkpoint of another configuration; repeat its flags, or delete it"
        )
    return state
