"""The origin of a result: code, versions and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ptal_ray.process.cpus import usable_cpus

_PACKAGES = ("ptal-ray", "torch", "numpy", "pyarrow", "ray", "optuna", "mlflow")


def provenance() -> dict[str, Any]:
    """JSON-able {"git_commit", "versions", "hardware"} of this process."""
    return {"git_commit": git_commit(), "versions": versions(), "hardware": hardware()}


def git_commit() -> str:
    """Commit hash of this package's checkout, with "-dirty" if files differ; "" outside of one."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", here.name) != here.name:
        return ""  # installed as a wheel, maybe inside somebody else's repository
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def hardware() -> dict[str, Any]:
    """CPU model and cores this process may use, memory in GiB, GPU names."""
    return {
        "cpu": _cpu_model(),
        "cpus": usable_cpus(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else [],
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git; the versions still identify the code
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
