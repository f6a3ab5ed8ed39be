"""Distributes rows of work over processes with Ray Data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data

from ptal_ray.backends.ray.cluster import cluster, nodes
from ptal_ray.errors import ConfigError

Row = dict[str, Any]


def spread(
    rows: Sequence[Row],
    worker: type,
    arguments: tuple[Any, ...],
    *,
    device: str,
    workers: int,
    address: str | None,
) -> Iterator[Row]:
    """Call `worker(*arguments, threads)(row)` for every row, in several processes.

    Args:
        rows: plain values.
        worker: class that is created once per process and called with one row after the other.
        arguments: of the worker; the number of threads is added.
        device: of the computation.
        workers: processes; each has a GPU, or a fraction of one, if `device` is "cuda".
        address: of a running Ray cluster; None starts Ray on this machine.

    Yields:
        The results of the calls, in the order of completion.

    Raises:
        ConfigError: no cluster answers, or the workers do not fit on it.
    """
    with cluster(address, with_train=False, verbose=False):
        _silence()
        cpus, gpus = _shares(workers, device)
        found = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
            worker,
            fn_constructor_args=(*arguments, cpus),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        yield from found.iter_rows()


def _silence() -> None:
    """Suppress Ray Data's own lines and progress bars."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _shares(workers: int, device: str) -> tuple[int, float]:
    """CPUs and GPUs of each worker.

    Raises:
        ConfigError: there are fewer CPUs than workers, or no GPU.
    """
    found = nodes()
    cpus = sum(int(node.get("CPU", 0)) for node in found)
    gpus = sum(int(node.get("GPU", 0)) for node in found)
    if workers > cpus:
        raise ConfigError(f"--workers {workers}: Ray has {cpus} CPUs; give at most {cpus}")
    if device != "cuda":
        each = [int(node.get("CPU", 0)) for node in found]
        fits = (n for n in range(cpus // workers, 1, -1) if sum(c // n for c in each) >= workers)
        return next(fits, 1), 0.0
    if not gpus:
        raise ConfigError("--device cuda: Ray has no GPU; give --device cpu")
    return 1, 1 / math.ceil(workers / gpus) if workers > gpus else 1.0
