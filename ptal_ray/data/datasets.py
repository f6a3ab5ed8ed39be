"""Datasets by name: where they lie, how they are imported, how detections on them are judged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a benchmark is judged.

    Args:
        tiou: thresholds at which mAP is reported.
        averages: name -> thresholds averaged; the first is the objective of a search.
    """

    tiou: tuple[float, ...]
    averages: dict[str, tuple[float, ...]]


def _steps(first: int, last: int, step: int = 10) -> tuple[float, ...]:
    return tuple(percent / 100 for percent in range(first, last + 1, step))


THUMOS_LIKE = Protocol(
    tiou=_steps(10, 70),
    averages={
        "0.10-0.70": _steps(10, 70),
        "0.10-0.50": _steps(10, 50),
        "0.30-0.70": _steps(30, 70),
    },
)
ACTIVITYNET = Protocol(tiou=_steps(50, 95, 5), averages={"0.50-0.95": _steps(50, 95, 5)})

EPIC = Protocol(tiou=_steps(10, 50), averages={"0.10-0.50": _steps(10, 50)})


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One benchmark: its protocol, and the commands that import it.

    Args:
        protocol: how it is judged.
        flags: what `import` needs beside features and annotations.
        simulated: flags of `simulate` where it makes the dataset from its annotations, else "".
        note: a line on the data, shown wherever results on it are.
    """

    protocol: Protocol
    flags: str
    simulated: str = ""
    note: str = ""


_GT = "--annotations GT.json"
_CSV = f"{_GT} --points CSV"
_SUPERVISED = "real video; features are class scores of models trained with full labels"

DATASETS = {
    "watch": Dataset(protocol=THUMOS_LIKE, flags=""),
    "gtea": Dataset(protocol=THUMOS_LIKE, flags=f"{_CSV} --fps 15 --stride 16", simulated=_CSV),
    "gtea_scores": Dataset(
        protocol=THUMOS_LIKE,
        flags=f"{_CSV} --point-fps 15 --fps 3 --stride 1",
        note=_SUPERVISED,
    ),
    "salads50_scores": Dataset(
        protocol=THUMOS_LIKE,
        flags=f"{_GT} --simulate-points gaussian --fps 1 --stride 1",
        note=f"{_SUPERVISED}; a second is one feature step",
    ),
    "beoid": Dataset(protocol=THUMOS_LIKE, flags=f"{_CSV} --fps 30 --stride 16", simulated=_CSV),
    "thumos14": Dataset(protocol=THUMOS_LIKE, flags=f"{_CSV} --fps 25 --stride 16", simulated=_CSV),
    "anet12": Dataset(
        protocol=ACTIVITYNET,
        flags=f"{_GT} --simulate-points gaussian --fps 25 --stride 16 --drop-invalid",
        simulated=_GT,
    ),
    "anet13": Dataset(
        protocol=ACTIVITYNET,
        flags=f"{_CSV} --point-fps VIDEO_INFO.csv --fps 25 --stride 16 --drop-invalid",
        simulated=_CSV,
    ),
    "epic_verb": Dataset(
        protocol=EPIC, flags=f"{_GT} --simulate-points gaussian --fps 30 --stride 16 --window 32"
    ),
    "epic_noun": Dataset(
        protocol=EPIC, flags=f"{_GT} --simulate-points gaussian --fps 30 --stride 16 --window 32"
    ),
}


def protocol(name: str) -> Protocol:
    """How detections on dataset `name` are judged; an unknown one like THUMOS14."""
    return DATASETS[name].protocol if name in DATASETS else THUMOS_LIKE


def note(name: str) -> str:
    """What is known of the data of `name`; empty where nothing is."""
    return DATASETS[name].note if name in DATASETS else ""


def import_hint(name: str) -> str:
    """The commands that import dataset `name`, as part of a sentence."""
    dataset = DATASETS.get(name)
    flags = dataset.flags if dataset else f"{_CSV} --fps FPS --stride FRAMES"
    hint = f"import it with `python -m ptal_ray.data import {name} --features DIR {flags}`"
    if dataset and dataset.simulated:
        hint += (
            " or simulate features on its annotations with "
            f"`python -m ptal_ray.data simulate {name} {dataset.simulated}`"
        )
    return hint


def data_root() -> Path:
    """Where stores lie: $PTAL_DATA, else the user's cache directory."""
    if "PTAL_DATA" in os.environ:
        return Path(os.environ["PTAL_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ptal_ray"


def find(name_or_path: str) -> FeatureStore:
    """A store by name under `data_root()`, or by path; "watch" is assembled on first use.

    Raises:
        DataError: there is none; says how to import it.
    """
    path = Path(name_or_path) if "/" in name_or_path else data_root() / name_or_path
    if name_or_path == "watch" and not (path / "store.json").exists():
        from ptal_ray.data.watch import assemble  # needs seglearn, which nothing else does

        assemble(path)
    if not path.exists() and "/" in name_or_path:
        raise DataError(f"{path}: there is no feature store; give the directory of one, or a name")
    if not path.exists():
        raise DataError(
            f"dataset {name_or_path!r} is not imported ({path} is missing); "
            f"{import_hint(name_or_path)}; `--dataset watch` tries the same space at once"
        )
    return FeatureStore.open(path)
