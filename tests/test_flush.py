"""A store is on the disk before it has its name, and while it grows."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import HANG_S, make_store

from ptal_ray.data.importing.survey import surveyed
from ptal_ray.errors import DataError
from ptal_ray.storage import flush as flushing
from ptal_ray.storage.flush import early_writes


def test_a_growing_file_is_written_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    written = threading.Event()

    def seen(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        written.set()

    monkeypatch.setattr(flushing, "STEP", 10)
    monkeypatch.setattr(os, "fdatasync", seen)
    with (tmp_path / "file").open("wb", buffering=0) as file, early_writes(file.fileno()) as grown:
        for _ in range(2):
            file.write(b"12345")
            grown(5)
        assert written.wait(HANG_S) and sizes == [10]
        file.write(b"12345")
        grown(5)
    assert sizes == [10]  # less than a step


def test_a_disk_that_fails_while_a_file_grows_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    with (
        pytest.raises(OSError, match="No space left"),
        (tmp_path / "file").open("wb") as file,
        early_writes(file.fileno()) as grown,
    ):
        grown(flushing.STEP)


def test_a_store_has_its_name_only_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()
    fsync = os.fsync

    def seen(fd: int) -> None:
        assert not (tmp_path / "tiny").exists()
        names.add(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", seen)
    make_store(tmp_path / "tiny")
    assert names == {path.name for path in (tmp_path / "tiny").iterdir()} | {"new"}

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="cannot be written .No space left"):
        make_store(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("snippets", [3, 1 << 18])  # below and above what a compiled loop reads
def test_one_value_that_is_not_finite_is_found(
    dtype: type[np.generic], value: float, snippets: int
) -> None:
    features = np.zeros((snippets, 5), dtype)
    features[2, 4] = value
    (problem,) = surveyed("a", features).problems
    assert f"features[2, 4] is {value}, the first of 1" in problem


def test_large_values_whose_squares_overflow_are_finite() -> None:
    found = surveyed("a", np.array([[1e300, 1.0], [-1e300, 2.0]]))
    assert found.problems == () and found.sums is not None
