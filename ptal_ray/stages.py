"""What an earlier stage of training left, kept for every trial that depends on the same of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from filelock import FileLock

from ptal_ray.data.types import Scores
from ptal_ray.decoding import read_scores, write_scores
from ptal_ray.errors import ConfigError
from ptal_ray.scoring import from_first
from ptal_ray.trial_config import TrialConfig

Key = tuple[TrialConfig, str, tuple[str, ...]]


def stage_scores(
    key: Key, made: Callable[[], list[Scores]], rank: int = 0, world_size: int = 1
) -> list[Scores]:
    """The scores that a stage gives its training videos: found in the cache, or made and kept.

    Concurrent trials, also on other machines that share the folder, wait for the one that makes
    them. Files appear whole or not at all, and the lock of a killed process is free.

    Args:
        key: the stage's configuration, whose `stages` is the cache folder or empty for none; the
            content hash of the data; the ids trained on.
        made: trains and scores; every worker calls it, rank 0 has the result.
        rank, world_size: of this worker among those of the trial.

    Raises:
        ConfigError: the folder cannot be written to.
        DataError: what the cache holds is damaged.
    """
    path = entry(key)
    if path and rank == 0:
        _make_folder(path.parent)
    lock = FileLock(path.with_suffix(".lock")) if path and rank == 0 else nullcontext()
    with lock:
        kept = read_scores(path) if path and rank == 0 and path.exists() else None
        found = from_first(kept, world_size)
        if found is None:
            result = made()
            if path and rank == 0:
                write_scores(path, result)
            found = from_first(result, world_size)
    assert found is not None
    return found


def entry(key: Key) -> Path | None:
    """The file of a stage: named by a hash of everything its scores depend on."""
    config, data_hash, ids = key
    if not config.stages:
        return None
    depends = {
        "code": _code(), "data": data_hash, "ids": ids, "method": config.method,
        "train": config.train, "steps": config.report_steps, "seed": config.seed,
        "precision": config.precision,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    return Path(config.stages) / f"{config.method}-{digest[:32]}.npz"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise ConfigError(f"{folder}: not a folder to write to; earlier stages are kept there")


@cache
def _code() -> str:
    """A hash of this package's source: a stage may depend on any of it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
