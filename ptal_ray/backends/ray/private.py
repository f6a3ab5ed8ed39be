"""Every private name of Ray that is used, because no public one exists. Check them when Ray is
upgraded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private import ray_constants, services
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]


def local_options(folder: Path) -> dict[str, Any]:
    """Arguments with which Ray starts on this machine.

    `_temp_dir`: sockets need a short path. `_node_ip_address`: Ray listens only on loopback.
    `_system_config`: no idle Python process for each CPU.
    """
    return {
        "_temp_dir": str(folder),
        "_node_ip_address": "127.0.0.1",
        "_system_config": {"prestart_worker_first_driver": False},
    }


@contextmanager
def loopback() -> Iterator[None]:
    """Let a node started in this block listen only on 127.0.0.1. Otherwise Ray on Linux would
    listen on every interface."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def address_here() -> str:
    """The address of the cluster that Ray would join on this machine, without joining it.

    Raises:
        ConnectionError: there is none.
    """
    return str(services.get_ray_address_from_environment("auto", None))


def has_token() -> bool:
    """Whether Ray has a token of a cluster, from its environment or a file."""
    return bool(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True))


def token_header() -> dict[str, str]:
    """The header with which Ray sends its token, to ask a cluster for it before Ray waits.

    Raises:
        ray.exceptions.AuthenticationError: a token is required here, and there is none.
    """
    return dict(AuthenticationTokenLoader.instance().get_token_for_http_header())


def pass_no_aws_keys() -> None:
    """Prevent Tune from passing AWS keys as settings of an actor, because Ray logs these. Processes
    get the keys from the environment of their node."""
    from ray.tune.execution import class_cache  # slow, only for a study

    kept = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}
    class_cache.ENV_VARS_TO_PROPAGATE = kept


@contextmanager
def without_state_of_tune() -> Iterator[None]:
    """Prevent Tune from checking at every step where and when to write its state, which is not
    used."""
    from ray.tune.execution import experiment_state  # slow, only for a study

    manager = experiment_state._ExperimentCheckpointManager
    before = manager.sync_up_experiment_state
    manager.sync_up_experiment_state = lambda *arguments, **named: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        manager.sync_up_experiment_state = before  # type: ignore[method-assign]
