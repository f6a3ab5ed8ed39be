"""Records searches: trains every configuration of a table on every fold with every seed.

A table is a folder:
    table.json       the description: space, data, configurations, steps, decode settings
    cells.parquet    a row for each configuration, fold, seed and report step
    test.parquet     a row for each configuration and seed, trained on the whole training split;
                     only `scorer.sealed_values` reads it
    .cells           while it is being recorded: a file for each training that is done
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ptal_ray.data.datasets import find
from ptal_ray.errors import ConfigError, DataError, DivergedError, PtalError, StorageError
from ptal_ray.methods.method import load
from ptal_ray.process.pool import process_pool
from ptal_ray.space.domain import Scalar
from ptal_ray.space.space import SearchSpace
from ptal_ray.space.untried import number_of_points, point, untried
from ptal_ray.storage.whole import whole
from ptal_ray.study.provenance import provenance
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import decode_settings
from ptal_ray.training.selection import check_instances
from ptal_ray.training.stages import start
from ptal_ray.training.supervision import split_ids

VERSION = 1
DESCRIPTION, CELLS, TEST, WORK = "table.json", "cells.parquet", "test.parquet", ".cells"
_ON_TEST = -1  # fold number of a training on the whole training split
_EXTENDS = ("configurations", "seeds", "provenance")  # may differ when a recording continues


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: its position in the table and its configuration."""

    configuration: int
    fold: int
    seed: int
    config: TrialConfig

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.configuration}_{'test' if self.fold == _ON_TEST else self.fold}_{self.seed}"


def record(
    space: SearchSpace,
    out: Path,
    *,
    configurations: int,
    folds: int,
    seeds: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Record a table, or continue an interrupted recording.

    Args:
        space: the search space; its `budget` gives the report steps, its `selection` the number of
            decode settings and the seed of the folds.
        out: the folder of the table.
        configurations: their number; number 0 is the defaults, the others are drawn at random.
        folds: number of disjoint folds of the training split.
        seeds: number of trainings of each configuration on each fold.
        workers: processes.
        progress: called with the number of finished and of all trainings.
        note: called with a line about the first failed training of each configuration.

    Raises:
        ConfigError: `out` has another table, or other files.
        DataError: the data set has too few videos for the folds.
        PtalError: the defaults cannot be trained, or the storage is full.
    """
    cells, description = plan(space, configurations=configurations, folds=folds, seeds=seeds)
    description |= {"folds": folds, "seeds": seeds, "provenance": provenance()}
    if not _begun(out, description):
        return
    work = out / WORK
    cells = [replace(c, config=replace(c.config, stages=str(work / "stages"))) for c in cells]
    due = [cell for cell in cells if not (work / f"{cell.name}.json").exists()]
    progress(len(cells) - len(due), len(cells))
    failed: list[Cell] = []  # written at the end: if interrupted, they are tried again
    with process_pool(workers) as pool:
        running = {pool.submit(trained, cell.config): cell for cell in due}
        for number, done in enumerate(as_completed(running), len(cells) - len(due) + 1):
            cell = running[done]
            try:
                _keep(work / f"{cell.name}.json", {"rows": done.result()})
            except PtalError as error:
                if cell.configuration == 0 or isinstance(error, StorageError):
                    raise
                if cell.configuration not in [one.configuration for one in failed]:
                    note(f"configuration {cell.configuration} counts as diverged: {error}")
                failed.append(cell)
            progress(number, len(cells))
    for cell in failed:
        _keep(work / f"{cell.name}.json", {"rows": []})
    _write(out, cells, description)


def plan(
    space: SearchSpace, *, configurations: int, folds: int, seeds: int
) -> tuple[list[Cell], dict[str, Any]]:
    """The trainings of a table, seed by seed, and the content of table.json.

    Raises:
        DataError: the data set is missing, has too few videos for the folds, or a fold or the test
            split has no annotated instance.
    """
    store = find(space.dataset)
    params = drawn(space, configurations)
    fold_seed = space.selection.fold_seed
    base = TrialConfig(
        method=space.method, store=str(store.path), train=space.train_defaults(),
        decode=space.decode_defaults(), decode_domains=space.decode,
        decode_settings=space.selection.decode_settings, cross_fit=space.selection.cross_fit,
        seed=0, report_steps=space.budget.report_steps, fold_seed=fold_seed,
        precision=space.resources.precision, num_folds=folds,
    )  # fmt: skip
    whole_split = replace(
        base, fit_on="train", score_on="test", report_steps=base.report_steps[-1:], num_folds=0
    )
    for config in (whole_split, *(replace(base, fold=k) for k in range(folds))):
        _, scored = split_ids(store, config, space.train_params())
        check_instances(store, scored, config.score_on)
    cells = [
        Cell(
            configuration=k, fold=fold, seed=seed,
            config=replace(
                whole_split if fold == _ON_TEST else replace(base, fold=fold),
                seed=seed, train=space.resolve_train(params[k]),
            ),
        )
        for seed, fold, k in product(range(seeds), (_ON_TEST, *range(folds)), range(len(params)))
    ]  # fmt: skip
    start = load(space.method).decode_params(**base.decode)
    settings = decode_settings(start, space.decode, base.decode_settings, fold_seed)
    return cells, {
        "version": VERSION, "name": space.name, "space": space.as_dict(),
        "data_hash": store.info.content_hash, "note": store.info.note,
        "steps": list(base.report_steps), "settings": [asdict(hp) for hp in settings],
        "configurations": params, "defaults": space.train_defaults(),
    }  # fmt: skip


def drawn(space: SearchSpace, number: int) -> list[dict[str, Scalar]]:
    """The defaults, as {}, and random configurations; each depends only on its number, and in a
    finite space on the earlier ones, so that none comes twice."""
    found: list[dict[str, Scalar]] = [{}]
    taken = {point(space.train, space.train_defaults())}
    for k in range(1, number):
        units = np.random.default_rng([0, k]).random(len(space.train))
        pairs = zip(space.train.items(), units, strict=True)
        own = {key: domain.sample(float(unit)) for (key, domain), unit in pairs}
        if number_of_points(space.train) is not None:
            other = untried(space.train, own, taken, np.random.default_rng([0, k, 1]))
            if other is None:
                break
            own = other
            taken.add(point(space.train, own))
        found.append(own)
    return found


def trained(config: TrialConfig) -> list[dict[str, Any]]:
    """Train one cell; returns a row per report step, without a value after it diverged.

    Raises:
        PtalError: it cannot be trained.
    """
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), list[dict[str, Any]]()
    with suppress(DivergedError):  # missing steps mark the divergence
        trial = start(config)
        while not trial.done:
            report = trial.advance()
            rows.append({
                "step": report.step, "objective": report.settings,
                "cross_fitted": report.objective, "seconds": time.perf_counter() - began,
            })  # fmt: skip
    return rows


def _begun(out: Path, description: dict[str, Any]) -> bool:
    """Create the folder of a new table; returns False if the table is already complete.

    table.json is written first: a folder without it has only what a killed process left of it.

    Raises:
        ConfigError: the folder has other files, or a table with other settings.
    """
    plain = json.loads(json.dumps(description))
    there = out / DESCRIPTION
    if not there.exists():
        left = list(out.glob(f".{DESCRIPTION}.*"))
        if out.exists() and set(out.iterdir()) - {*left}:
            raise ConfigError(f"{out}: holds other files; choose a new folder for --out")
        for file in left:
            file.unlink()
        out.mkdir(parents=True, exist_ok=True)
        _keep(there, plain)
        (out / WORK).mkdir()
        return True
    before = described(out)
    recorded = (out / TEST).exists()
    keys = [k for k in plain if k != "provenance" and (recorded or k not in _EXTENDS)]
    if other := [key for key in keys if before.get(key) != plain[key]]:
        raise ConfigError(
            f"{out}: holds a recording with other {', '.join(other)}; repeat its flags, or choose "
            "a new folder for --out"
        )
    if not recorded:
        (out / WORK).mkdir(exist_ok=True)
        _keep(there, plain)
    return not recorded


def described(folder: Path) -> dict[str, Any]:
    """table.json of a table of this version.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; give a folder that the command record wrote"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: damaged; record the table again") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        version = found.get("version") if isinstance(found, dict) else None
        raise DataError(
            f"{path}: version {version}, this program reads {VERSION}; record the table again"
        )
    return found


def _write(out: Path, cells: list[Cell], description: dict[str, Any]) -> None:
    """Write the two Parquet files from the files of the trainings, that of the test last."""
    on_fold = [cell for cell in cells if cell.fold != _ON_TEST]
    on_test = [cell for cell in cells if cell.fold == _ON_TEST]
    steps, settings = description["steps"], len(description["settings"])
    for name, part, asked in ((CELLS, on_fold, steps), (TEST, on_test, steps[-1:])):
        rows = [row for cell in part for row in _rows(out / WORK, cell, asked, settings)]
        numbers = pa.list_(pa.float32(), settings)
        schema = pa.schema(
            [(key, pa.int32()) for key in ("configuration", "fold", "seed", "step")]
            + [("objective", numbers), ("cross_fitted", pa.float32()), ("seconds", pa.float32())]
        )
        with whole(out / name) as beside:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), beside)
    shutil.rmtree(out / WORK)


def _rows(work: Path, cell: Cell, steps: list[int], settings: int) -> Iterator[dict[str, Any]]:
    """The rows of a training, with NaN at steps that it did not reach."""
    path = work / f"{cell.name}.json"
    found = {row["step"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    none = {"objective": [np.nan] * settings, "cross_fitted": np.nan, "seconds": np.nan}
    place = {"configuration": cell.configuration, "fold": cell.fold, "seed": cell.seed}
    for step in steps:
        yield place | {"step": step} | found.get(step, none)


def _keep(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as beside:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
