"""How many CPUs this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Number of CPUs of this process, limited by affinity and the quota of its container; at least
    1."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min([cpus, *_quotas()])))


def _quotas() -> Iterator[float]:
    """CPUs granted by each control group of this process; groups without a limit are skipped.

    A container sees its own group below its path or, if the path is that of the host, as the root
    of the mount. Parent groups limit it too.
    """
    for line in _OWN.read_text("utf-8").splitlines() if _OWN.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [_CGROUPS / name for name in ("cpu", "cpu,cpuacct")] if controllers else [_CGROUPS]
        own = Path(path.lstrip("/"))
        for mount in mounts:
            for folder in (own, *own.parents):
                yield from _granted(mount / folder)


def _granted(group: Path) -> Iterator[float]:
    """Quota over period of one group: version 2 has both in a file, version 1 in two."""
    names = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    for files in names:
        if all((group / name).is_file() for name in files):
            words = " ".join((group / name).read_text("utf-8") for name in files).split()
            if words[0] not in ("max", "-1"):
                yield int(words[0]) / int(words[1])
