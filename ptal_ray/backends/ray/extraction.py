"""Features of many videos at once, as a pipeline of Ray Data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.data

from ptal_ray.backends.ray.cluster import cluster, nodes
from ptal_ray.errors import ConfigError
from ptal_ray.video.extractor import Extractor, Outcome
from ptal_ray.video.settings import Settings


def extract_spread(
    videos: Mapping[str, Path],
    settings: Settings,
    out: Path,
    *,
    device: str,
    workers: int,
    address: str | None,
) -> Iterator[Outcome]:
    """Extracts videos with several processes, which write their features themselves.

    Args:
        videos: id -> file, which every node sees at the same path.
        settings: what decides the features.
        out: the folder that `Manifest.begun` made, the same on every node.
        device: to compute on.
        workers: processes; one GPU, or a share of one, for each where `device` is "cuda".
        address: of a running Ray cluster; None starts Ray on this machine.

    Yields:
        What became of a video, in the order in which they are finished.

    Raises:
        ConfigError: no cluster answers, or the workers find no place on it.
    """
    with cluster(address, with_train=False, verbose=False):
        _silence()
        cpus, gpus = _shares(workers, device)
        rows = [{"video": video, "file": str(file)} for video, file in videos.items()]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,  # type: ignore[arg-type]
            fn_constructor_args=(settings, out, device, cpus),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        for row in found.iter_rows():
            yield Outcome(**row)


def _silence() -> None:
    """Keeps Ray Data's own lines and bars off the terminal."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Worker:
    """An extractor in a process of its own."""

    def __init__(self, settings: Settings, out: Path, device: str, threads: int) -> None:
        self._extract = Extractor(settings, out, device, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._extract(row["video"], Path(row["file"])))


def _shares(workers: int, device: str) -> tuple[int, float]:
    """CPUs and GPUs of each worker.

    Raises:
        ConfigError: there are fewer CPUs than workers, or no GPU.
    """
    found = nodes()
    cpus = sum(int(node.get("CPU", 0)) for node in found)
    gpus = sum(int(node.get("GPU", 0)) for node in found)
    if workers > cpus:
        raise ConfigError(f"--workers {workers}: Ray has {cpus} CPUs here; give at most as many")
    if device != "cuda":
        smallest = min(int(node["CPU"]) for node in found if node.get("CPU", 0) >= 1)
        return min(cpus // workers, smallest), 0.0
    if not gpus:
        raise ConfigError("--device cuda: Ray has no GPU; give --device cpu")
    return 1, 1 / math.ceil(workers / gpus) if workers > gpus else 1.0
