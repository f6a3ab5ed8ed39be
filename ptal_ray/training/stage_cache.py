"""The cache of results of earlier training stages, shared by trials with the same stage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import StageResult, load
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.lock import locked
from ptal_ray.training.checkpoint import read_checkpoint, write_checkpoint
from ptal_ray.training.code_hash import code_hash
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import read_scores, write_scores
from ptal_ray.training.worker import Worker

Key = tuple[TrialConfig, str, tuple[str, ...]]


def stage_result(
    key: Key,
    made: Callable[[], StageResult],
    worker: Worker,
    scored: bool = True,
) -> StageResult:
    """The result of a stage, from the cache, or computed and stored.

    Concurrent trials, also on other machines that share the folder, wait for the trial that
    computes it. Files are written atomically, the scores after the weights, and a killed process
    releases its lock. If `stages` is an s3:// address, every machine has its own folder and checks
    it first; two machines may then compute the same stage at the same time.

    Args:
        key: the stage's configuration, whose `stages` is the cache folder, an address, or empty for
            no cache; the content hash of the data; the ids to score.
        made: trains and scores; every worker calls it, rank 0 gets the result.
        worker: this worker of the trial.
        scored: whether to read the scores too; else only the weights are read.

    Raises:
        ConfigError: the folder cannot be written to.
        DataError: the cache is damaged.
        StorageError: the address cannot be read or written.
    """
    path, first = entry(key), worker.rank == 0
    if path and first:
        _make_folder(path.parent)
    with locked(path.with_suffix(".lock"), wait=True) if path and first else nullcontext():
        if path and first and not path.exists():
            _pull(path, key)
        kept = _read(path, scored) if path and first and path.exists() else None
        found = worker.from_first(kept)
        if found is None:
            result = made()
            if path and first:
                _write(path, result)
                Folder.parse(key[0].stages).send(*_files(path))
            found = worker.from_first(result if scored else replace(result, scores=[]))
    assert found is not None
    return found


def _write(path: Path, result: StageResult) -> None:
    if result.weights:
        write_checkpoint(path.with_suffix(".pt"), path.stem, {"weights": result.weights})
    write_scores(path, result.scores)


def _pull(path: Path, key: Key) -> None:
    there = Folder.parse(key[0].stages)
    if there.remote and path.name in there.names(below=False):
        there.bring(*_files(path))


def _files(path: Path) -> tuple[str, str]:
    """The files of a stage in the order of copying; the last one, the scores, marks it complete."""
    return path.with_suffix(".pt").name, path.name


def _read(path: Path, scored: bool = True) -> StageResult:
    weights = path.with_suffix(".pt")
    kept = read_checkpoint(weights, path.stem, torch.device("cpu")) if weights.exists() else {}
    scores = read_scores(path) if scored else []
    return StageResult(scores=scores, weights=kept.get("weights", {}))


def entry(key: Key) -> Path | None:
    """The file of a stage: named by a hash of everything its scores depend on."""
    config, data_hash, ids = key
    if not config.stages:
        return None
    depends: dict[str, Any] = {
        "code": code_hash(f"ptal_ray.methods.{config.method}", "ptal_ray.training.stages"),
        "data": data_hash, "ids": ids, "method": config.method, "train": config.train,
        "decode": config.decode, "steps": config.report_steps, "seed": config.seed,
        "precision": config.precision, "fit_on": config.fit_on, "files": _named_files(config),
    }  # fmt: skip
    if config.fit_on == "fit":
        depends |= {"fold": [config.val_fraction, config.fold_seed, config.num_folds, config.fold]}
    if config.points:
        depends["points"] = config.points
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    return Folder.parse(config.stages).here / f"{config.method}-{digest[:32]}.npz"


def check_folder(stages: str) -> None:
    """Check that the folder of stages, if it exists, is a writable folder.

    Raises:
        ConfigError: it is not.
    """
    if not stages or Folder.parse(stages).remote:
        return
    folder = Path(stages)
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigError(f"{folder}: not a folder to write to; earlier stages are kept there")


def _make_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    check_folder(str(folder))
    if not folder.exists():
        raise ConfigError(f"{folder}: cannot be made; earlier stages are kept there")


def _named_files(config: TrialConfig) -> dict[str, str]:
    """Hashes of the files in train parameters."""
    named = [f.name for f in fields(load(config.method).train_params) if f.metadata["file"]]
    paths = {name: Path(str(config.train[name])) for name in named if config.train.get(name)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
