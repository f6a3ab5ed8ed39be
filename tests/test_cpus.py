"""The CPUs that a process may use: affinity and the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ptal_ray.process import cpus
from ptal_ray.process.cpus import usable_cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 CPUs whose control groups lie in a folder; no group has a limit yet."""
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(cpus, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    return tmp_path


def limit(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text)


def test_without_control_groups_the_affinity_counts(machine: Path) -> None:
    assert usable_cpus() == 64


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [("max 100000", 64), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1),
     ("9900000 100000", 64)],
)  # fmt: skip
def test_the_quota_of_version_2(quota: str, wanted: int, machine: Path) -> None:
    (machine / "own").write_text("0::/\n")
    limit(machine / "fs", cpu__max=f"{quota}\n")
    assert usable_cpus() == wanted


def test_a_group_further_up_limits_too(machine: Path) -> None:
    (machine / "own").write_text("0::/jobs/mine\n")
    limit(machine / "fs/jobs/mine", cpu__max="800000 100000")
    assert usable_cpus() == 8
    limit(machine / "fs/jobs", cpu__max="300000 100000")
    assert usable_cpus() == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("path", ["/", "/docker/path-of-the-host"])
def test_the_quota_of_version_1(mount: str, path: str, machine: Path) -> None:
    (machine / "own").write_text(f"4:memory:/x\n3:{mount}:{path}\n2:cpuset:/\n0::/\n")
    limit(machine / "fs" / mount, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert usable_cpus() == 64
    limit(machine / "fs" / mount, cpu__cfs_quota_us="200000\n")
    assert usable_cpus() == 2


def test_every_part_counts_in_one_place() -> None:
    package = Path(cpus.__file__).parents[1]
    counts = ("os.cpu_count", "sched_getaffinity")
    found = {p for p in package.rglob("*.py") if any(c in p.read_text() for c in counts)}
    assert found == {Path(cpus.__file__)}
