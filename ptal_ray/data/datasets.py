"""The benchmarks: how detections on them are judged and how they are imported."""

from __future__ import annotations

from dataclasses import dataclass


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

_IMPORT = "python -m ptal_ray.data import {name} --features DIR --annotations GT.json"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One benchmark: its protocol, and the commands that import it.

    Args:
        protocol: how it is judged.
        flags: what `import` needs beside features and annotations.
        simulated: whether `simulate` makes it from its annotations.
    """

    protocol: Protocol
    flags: str
    simulated: bool = False


DATASETS = {
    "watch": Dataset(protocol=THUMOS_LIKE, flags=""),
    "thumos14": Dataset(
        protocol=THUMOS_LIKE,
        flags="--points CSV --fps 25 --stride 16 --point-fps 30",
        simulated=True,
    ),
    "gtea": Dataset(
        protocol=THUMOS_LIKE, flags="--points CSV --fps 15 --stride 16", simulated=True
    ),
    "gtea_scores": Dataset(
        protocol=THUMOS_LIKE, flags="--points CSV --fps 3 --stride 1 --point-fps 15"
    ),
    "salads50_scores": Dataset(
        protocol=THUMOS_LIKE, flags="--fps 1 --stride 1 --simulate-points gaussian"
    ),
    "beoid": Dataset(
        protocol=THUMOS_LIKE, flags="--points CSV --fps 30 --stride 16", simulated=True
    ),
    "anet12": Dataset(
        protocol=ACTIVITYNET,
        flags="--fps 25 --stride 16 --simulate-points gaussian",
        simulated=True,
    ),
    "anet13": Dataset(
        protocol=ACTIVITYNET, flags="--points CSV --fps 25 --stride 16", simulated=True
    ),
}


def protocol(name: str) -> Protocol:
    """How detections on dataset `name` are judged; an unknown one like THUMOS14."""
    return DATASETS[name].protocol if name in DATASETS else THUMOS_LIKE


def import_hint(name: str) -> str:
    """The commands that import dataset `name`, as part of a sentence."""
    dataset = DATASETS.get(name)
    flags = dataset.flags if dataset else "--fps FPS --stride FRAMES"
    hint = f"import it with `{_IMPORT.format(name=name)} {flags}`"
    if dataset and dataset.simulated:
        hint += (
            f" or simulate features on its annotations with "
            f"`python -m ptal_ray.data simulate {name} --annotations GT.json`"
        )
    return hint
