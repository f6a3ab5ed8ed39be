"""What every process of a study does first; imports little, because all of them pay for it."""

from __future__ import annotations

import os

import psutil
import ray

from ptal_ray.storage.user_directories import ensure_home


def prepare_process() -> None:
    """Run by Ray in every process of a study before anything else.

    Gloo would take the address that the host name resolves to, on many machines the loopback's,
    and Ray Train would clean up in whichever cluster began last on this machine.
    """
    ensure_home()
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for name, addresses in psutil.net_if_addrs().items():
        if here in (entry.address for entry in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
