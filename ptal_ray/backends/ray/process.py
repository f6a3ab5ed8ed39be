"""The setup of every process of a study; imports little, because every process runs it."""

from __future__ import annotations

import os

import psutil
import ray

from ptal_ray.storage.user_directories import ensure_home


def prepare_process() -> None:
    """Prepare a process of a study; Ray calls this first in each.

    Otherwise Gloo would use the address of the host name, on many machines the loopback address,
    and Ray Train would clean up in the cluster that was started last on this machine.
    """
    ensure_home()
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for name, addresses in psutil.net_if_addrs().items():
        if here in (entry.address for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
