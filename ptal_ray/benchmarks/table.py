"""A recorded search in memory: the scores on the folds, as arrays. Test values are not in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ptal_ray.benchmarks.recording import CELLS, described
from ptal_ray.errors import DataError
from ptal_ray.policy.coordinates import coordinates
from ptal_ray.space.domain import Domain

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The scores of trainings of C configurations on F folds with S seeds at R report steps.

    Args:
        name: of its folder.
        steps: (R,) optimiser steps of the reports.
        objective: (C, F, S, R, J) at each decode setting, the default first; fractions of mAP. A
            training that diverged has 0 from there on. Configuration 0 is the defaults.
        cross_fitted: (C, F, S, R) with decode settings chosen on the other half of the fold.
        seconds: (C, F, S, R) from the start of the training.
        coordinates: (C, D) coordinates of each configuration, about [0, 1] in each dimension.
        eta, top, seeds: of the recorded space: `budget.eta`, `final.top`, `final.seeds`.
    """

    name: str
    steps: Floats
    objective: Floats
    cross_fitted: Floats
    seconds: Floats
    coordinates: Floats
    eta: int
    top: int
    seeds: int


def read_table(folder: Path) -> Table:
    """The table in a folder, without its test values.

    Raises:
        DataError: it is missing, unfinished, damaged or of another version.
    """
    about = described(folder)
    try:
        steps, settings, params = about["steps"], about["settings"], about["configurations"]
        space, shape = about["space"], (len(params), about["folds"], about["seeds"], len(steps))
        eta, final = space["budget"]["eta"], space["final"]
        domains = {k: Domain.from_dict(d) for k, d in space["train"].items() if _searched(d)}
        full = [about["defaults"] | own for own in params]
        places = np.stack([coordinates(domains, own) for own in full])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}: table.json: no {error}; record the table again") from error
    found = columns(folder / CELLS, ("configuration", "fold", "seed", "step"))
    row = {step: k for k, step in enumerate(steps)}
    index = [*(found[name] for name in ("configuration", "fold", "seed"))]
    index.append(np.array([row.get(step, -1) for step in found["step"]]))
    filled = arranged(folder / CELLS, found, index, shape, len(settings))
    return Table(
        name=folder.resolve().name, steps=np.array(steps, float), coordinates=places, eta=int(eta),
        top=int(final["top"]), seeds=int(final["seeds"]), **filled,
    )  # fmt: skip


def _searched(value: Any) -> bool:
    return isinstance(value, dict)  # a domain; other entries are fixed values


def columns(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The columns of a Parquet file of trainings.

    Args:
        path: the file.
        keys: required integer columns, besides those of values.

    Raises:
        DataError: it is missing or not a Parquet file, or a column is missing.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; the recording is not finished: run the command record again"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file; record it again") from error
    wanted = (*keys, "objective", "cross_fitted", "seconds")
    if missing := [name for name in wanted if name not in table.column_names]:
        raise DataError(f"{path}: no column {', '.join(missing)}; record the table again")
    lists = table["objective"].to_pylist()
    if len({len(values) for values in lists}) > 1:
        raise DataError(f"{path}: rows with different numbers of settings; record the table again")
    plain = {name: table[name].to_numpy() for name in wanted if name != "objective"}
    return plain | {"objective": np.array(lists, float).reshape(len(lists), -1)}


def arranged(
    path: Path,
    found: dict[str, NDArray[Any]],
    index: list[NDArray[Any]],
    shape: tuple[int, ...],
    settings: int,
) -> dict[str, Floats]:
    """The values of `columns` as arrays of `shape`; `index` must have each position once.

    Raises:
        DataError: a position is missing or occurs twice, or the number of settings is wrong.
    """
    place = np.stack(index, axis=1)
    inside = ((place >= 0) & (place < shape)).all()
    rows = {tuple(row) for row in place.tolist()}
    if not inside or not len(rows) == len(place) == math.prod(shape):
        raise DataError(
            f"{path}: {len(place)} rows of {len(rows)} trainings and steps, "
            f"{math.prod(shape)} expected ({' x '.join(map(str, shape))}); record the table again"
        )
    if found["objective"].shape[1] != settings:
        raise DataError(
            f"{path}: {found['objective'].shape[1]} decode settings, {settings} expected; record "
            "the table again"
        )
    filled = {}
    for name in ("objective", "cross_fitted", "seconds"):
        value = np.nan_to_num(found[name].astype(float))
        filled[name] = np.zeros((*shape, *value.shape[1:]))
        filled[name][tuple(place.T)] = value
    return filled
