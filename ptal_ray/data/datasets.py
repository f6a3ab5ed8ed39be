"""Datasets by name: where they lie, how they are imported, how detections on them are judged."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ptal_ray.data.copies import local_copy, remote_hash
from ptal_ray.data.names import check_name
from ptal_ray.data.publication import published
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError, StorageError
from ptal_ray.process.words import did_you_mean
from ptal_ray.storage.folder import Folder, cache_root


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
THUMOS_DETECTORS = Protocol(  # the same numbers; the objective is another average
    tiou=THUMOS_LIKE.tiou,
    averages={name: THUMOS_LIKE.averages[name] for name in ("0.30-0.70", "0.10-0.70", "0.10-0.50")},
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
        assembled_by: the module of `readers` whose `assemble(path)` writes the store from what is
            installed, on first use; "" where features must be imported.
        detectors: how methods that learn from annotated instances are judged, where their papers
            average other thresholds than those of point supervision; None for `protocol`.
    """

    protocol: Protocol
    flags: str = ""
    simulated: str = ""
    note: str = ""
    assembled_by: str = ""
    detectors: Protocol | None = None


_GT = "--annotations GT.json"
_CSV = f"{_GT} --points CSV"
_HAPT = (
    "real smartphone signals of 30 people, SBHAR/HAPT v2.1 (Reyes-Ortiz et al., Neurocomputing "
    "2016); no commercial use"
)
_SUPERVISED = "real video; features are class scores of models trained with full labels"

DATASETS = {
    "watch": Dataset(protocol=THUMOS_LIKE, assembled_by="watch"),
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
    "hapt": Dataset(
        protocol=THUMOS_LIKE,
        flags=f"--layout signals {_CSV} --rate 50 --window 50 --stride 25",
        note=_HAPT,
    ),
    "beoid": Dataset(protocol=THUMOS_LIKE, flags=f"{_CSV} --fps 30 --stride 16", simulated=_CSV),
    "thumos14": Dataset(
        protocol=THUMOS_LIKE,
        flags=f"{_CSV} --fps 25 --stride 16",
        simulated=_CSV,
        detectors=THUMOS_DETECTORS,
    ),
    "thumos14_stride4": Dataset(
        protocol=THUMOS_LIKE,
        flags=f"{_CSV} --fps json --stride 4 --window 16",
        simulated=_CSV,
        detectors=THUMOS_DETECTORS,
    ),
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


def protocol(name: str, supervision: str = "point") -> Protocol:
    """How detections on dataset `name` are judged; an unknown one like THUMOS14.

    Args:
        name: of the dataset.
        supervision: of the method that is judged; all but "point" learn from instances.
    """
    if name not in DATASETS:
        return THUMOS_LIKE
    own = DATASETS[name]
    return own.protocol if supervision == "point" else own.detectors or own.protocol


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


def embedded() -> tuple[str, ...]:
    """Names of the datasets that need no import."""
    return tuple(name for name, dataset in DATASETS.items() if dataset.assembled_by)


def data_root() -> Path:
    """Where stores lie on this machine: $PTAL_DATA where it is a path, else the cache directory."""
    place = os.environ.get("PTAL_DATA", "")
    return Path(place) if place and not Folder.parse(place).remote else cache_root()


def data_place() -> str:
    """Where stores lie, as `PTAL_DATA` says it: a folder or an s3:// address."""
    place = os.environ.get("PTAL_DATA", "")
    return place if place and Folder.parse(place).remote else str(data_root())


def imported() -> tuple[str, ...]:
    """Names of the stores at `data_place`, and of those that are made on first use.

    Raises:
        DataError: the address cannot be listed.
    """
    place = Folder.parse(data_place())
    if place.remote:
        try:
            names = place.names()
        except StorageError as error:
            raise DataError(f"PTAL_DATA: {error}") from error
        found = {name.removesuffix("/store.json") for name in names if name.endswith("/store.json")}
        found = {name for name in found if "/" not in name}
    else:
        found = {path.parent.name for path in place.here.glob("*/store.json")}
    return tuple(sorted({*embedded(), *(name for name in found if not name.startswith("."))}))


def origin(name_or_path: str) -> str:
    """What tells any machine where to find a store: an s3:// address or a name; "" for a path.

    Raises:
        ConfigError: PTAL_DATA is no address, or a text without "/" is no name.
    """
    if (given := Folder.parse(name_or_path)).remote:
        return str(given)
    if "/" in name_or_path:
        return ""
    check_name(name_or_path)
    root = Folder.parse(os.environ.get("PTAL_DATA", ""))
    return str(root / name_or_path) if root.remote else name_or_path


def find(name_or_path: str) -> FeatureStore:
    """A store by name under $PTAL_DATA, or by path; an embedded dataset is assembled on first use.

    What lies at an s3:// address is copied to this machine first, once.

    Raises:
        DataError: there is none; says how to import it.
    """
    where = origin(name_or_path)
    if (place := Folder.parse(where)).remote:
        return FeatureStore.open(_remote_copy(place))
    path = data_root() / name_or_path if where else Path(name_or_path)
    if name_or_path in embedded() and not (path / "store.json").exists():
        _assemble(name_or_path, path)
    if not path.exists() and not where:
        raise DataError(
            f"{name_or_path}: there is no feature store; a text with / is taken for the folder of "
            "one; give its folder, or a name of letters, digits, _, - and ."
        )
    if not path.exists():
        raise _not_imported(name_or_path, str(path))
    return FeatureStore.open(path)


def present(store: str, source: str, content_hash: str) -> Path:
    """Where this machine has the data of a study, which began on this or another machine.

    Args:
        store: its path where the study began.
        source: as `origin` said there.
        content_hash: that it had there.

    Raises:
        DataError: naming this machine: it is not there, or its content is another one.
    """
    try:
        if (place := Folder.parse(source)).remote:
            path = local_copy(place, content_hash)
        elif source and not Path(store).exists():
            path = find(source).path
        else:
            path = Path(store)
        found = FeatureStore.open(path).info.content_hash
    except DataError as error:
        raise DataError(f"on {socket.gethostname()}: {error}") from error
    if found != content_hash:
        raise DataError(
            f"on {socket.gethostname()}: {path}: its content changed since the study began "
            f"({content_hash[:12]} then, {found[:12]} now); start a new study"
        )
    return path


def _remote_copy(source: Folder) -> Path:
    try:
        found = remote_hash(source)
        if not found and source.name in embedded():
            with published(source, replace=False) as path:
                _assemble(source.name, path)
            found = remote_hash(source)
    except StorageError as error:
        raise DataError(f"PTAL_DATA: {error}") from error
    if not found:
        raise _not_imported(source.name, str(source))
    return local_copy(source, found)


def _assemble(name: str, path: Path) -> None:
    """Writes the store of an embedded dataset."""
    import_module(f"ptal_ray.data.readers.{DATASETS[name].assembled_by}").assemble(path)


def _not_imported(name: str, place: str) -> DataError:
    stored = [path.parent.name for path in data_root().glob("*/store.json")]
    meant = did_you_mean(name, stored)
    return DataError(
        f"dataset {name!r} is not imported ({place} is missing){meant}; {import_hint(name)}; "
        f"or try a search space at once: python -m ptal_ray.search SPACE --dataset {embedded()[0]}"
    )
