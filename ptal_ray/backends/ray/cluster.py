"""Starts or joins Ray, counts the trials that fit, and shuts it down."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import ray
import torch

from ptal_ray.backends.ray.address import FORMS, host_and_port, source
from ptal_ray.backends.ray.private import address_here, local_options, loopback
from ptal_ray.backends.ray.process import prepare_process
from ptal_ray.backends.ray.scratch import socket_folder
from ptal_ray.backends.ray.token import HINT, check_token, keep_token, refused
from ptal_ray.errors import ConfigError
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.space.space import Resources
from ptal_ray.study.study import Study

OBJECT_STORE_BYTES = 200_000_000  # features are memory-mapped files, so little goes through it
CONNECT_S = 5.0
_ENVIRONMENT = {  # read by Ray in the driver, in trials and in the workers of a trial
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # a resume reads the study directory
}


def local_nodes() -> list[dict[str, float]]:
    """The resources that Ray would have on only this machine, without starting it."""
    return [{"CPU": float(usable_cpus()), "GPU": float(torch.cuda.device_count())}]


@contextmanager
def cluster(address: str | None, *, with_train: bool, verbose: bool) -> Iterator[None]:
    """Ray in a `with` block.

    Args:
        address: of a running cluster; None starts Ray on this machine, only on loopback.
        with_train: whether Ray Train will be used, which needs the dashboard's state service.
        verbose: whether to show the output of Ray and of the trials.

    Raises:
        ConfigError: no cluster answers at `address`, or it cannot be joined.
    """
    os.environ.update(_ENVIRONMENT | {"TUNE_PRINT_ALL_TRIAL_ERRORS": str(int(verbose))})
    level = logging.INFO if verbose else logging.CRITICAL
    logging.getLogger("ray").setLevel(level)
    with warnings.catch_warnings():
        if not verbose:
            warnings.filterwarnings("ignore", module=r"ray\b.*")
        try:
            _start(address, with_train, level, verbose)
            yield
        finally:
            ray.shutdown()


def _start(address: str | None, with_train: bool, level: int, verbose: bool) -> None:
    if address is None:
        _start_here(with_train, level, verbose)
        return
    found = _checked(address)
    try:
        ray.init(
            address=found,
            log_to_driver=verbose,
            logging_level=level,
            runtime_env={
                "env_vars": dict(_ENVIRONMENT),  # Ray adds the hook to it
                "worker_process_setup_hook": prepare_process,
            },
        )
    except ray.exceptions.AuthenticationError as error:
        raise refused(address, str(error)) from error
    except (ConnectionError, RuntimeError) as error:  # the second: from another version
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{source(address)}: cannot connect to this Ray cluster ({reason}); if it requires a "
            f"token, {HINT}"
        ) from error


def _start_here(with_train: bool, level: int, verbose: bool) -> None:
    keep_token()
    folder = socket_folder()
    try:
        with loopback():
            ray.init(
                address="local",
                num_cpus=usable_cpus(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=with_train,
                dashboard_host="127.0.0.1",
                log_to_driver=verbose,
                logging_level=level,
                runtime_env={"worker_process_setup_hook": prepare_process},
                **local_options(folder / "ray"),
            )
    except OSError as error:
        raise ConfigError(f"Ray cannot start in {folder} ({error}); set RAY_TMPDIR") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Ray's own for processes that do not start within 30 s
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"Ray did not start on this machine ({reason}). The machine may be overloaded: wait "
            "for other programs to finish, then run the command again"
        ) from error


def _checked(address: str) -> str:
    """host:port of a cluster that answers; fails within seconds, where Ray would take minutes.

    Raises:
        ConfigError: no Ray listens there, or it requires another token.
    """
    found = _cluster_here() if address == "auto" else address
    name = source(address) + (f" (which is {found} here)" if found != address else "")
    try:
        with socket.create_connection(host_and_port(found), timeout=CONNECT_S) as connection:
            if "RAY_USE_TLS" not in os.environ and not _speaks_http2(connection):
                raise OSError("the port is open, but not that of Ray's GCS, usually 6379")
    except (OSError, UnicodeError) as error:  # the second: for an invalid host name
        raise ConfigError(f"{name}: no Ray cluster answers at this address ({error})") from error
    if "RAY_USE_TLS" not in os.environ:
        check_token(found)
    return found


def _cluster_here() -> str:
    """host:port of the cluster that Ray would use on this machine.

    Raises:
        ConfigError: there is none.
    """
    try:
        found = address_here()
    except ConnectionError as error:
        raise ConfigError(
            "--address auto: no Ray cluster runs on this machine; start one with `ray start "
            f"--head`, or {FORMS}"
        ) from error
    try:
        host_and_port(found)
    except ConfigError as error:
        raise ConfigError(
            f"--address auto: Ray's file contains {found!r}, which is not an address; {FORMS}"
        ) from error
    return found


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether a gRPC server answers; Ray would wait minutes for anything else."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    return connection.recv(9)[3:4] == b"\4"  # each side starts with its settings


def nodes() -> list[dict[str, float]]:
    """Total resources of each living node of the cluster."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in found if node["Alive"]]


def trials_at_once(study: Study, nodes: Iterable[Mapping[str, float]]) -> int:
    """Number of concurrent trials of a study: as many as fit now, or after autoscaling.

    Raises:
        ConfigError: not even one trial fits.
    """
    if study.autoscale and study.max_concurrent:
        return study.max_concurrent
    return concurrency(study.space.resources, nodes, study.max_concurrent)


def concurrency(
    resources: Resources, nodes: Iterable[Mapping[str, float]], limit: int | None
) -> int:
    """Number of trials whose workers fit at the same time.

    Args:
        resources: resources of one trial.
        nodes: {"CPU": .., "GPU": ..} of every node; a worker is on one node.
        limit: at most this many, or None.

    Raises:
        ConfigError: not even one trial fits.
    """
    nodes = list(nodes)
    places = [_workers_on(resources, node) for node in nodes]
    trials = sum(places) // resources.workers
    if resources.placement == "strict_spread":  # a trial has at most one worker on a node
        while sum(min(here, trials) for here in places) < trials * resources.workers:
            trials -= 1
    if trials < 1:
        raise ConfigError(_too_small(resources, nodes))
    return min(trials, limit or trials)


def _too_small(resources: Resources, nodes: list[Mapping[str, float]]) -> str:
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    apart = ", each on a different node" if resources.placement == "strict_spread" else ""
    return (
        f"resources: a trial needs {resources.workers} workers x {resources.cpus_per_worker} "
        f"CPUs and {resources.gpus_per_worker:g} GPUs{apart}, but the cluster has {cpus:g} CPUs "
        f"and {gpus:g} GPUs on {len(nodes)} nodes; lower resources.workers, .cpus_per_worker or "
        ".gpus_per_worker, or pass --autoscale on a cluster with an autoscaler"
    )


def _workers_on(resources: Resources, node: Mapping[str, float]) -> int:
    by_cpu = int(node.get("CPU", 0.0) // resources.cpus_per_worker)
    share, gpus = resources.gpus_per_worker, int(node.get("GPU", 0.0))
    if not share:
        return by_cpu
    by_gpu = gpus * math.floor(1 / share + 1e-9) if share < 1 else int(gpus // share)
    return min(by_cpu, by_gpu)
