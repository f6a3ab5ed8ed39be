"""Shared by the tests: golden values, a small store, an address of S3."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from object_store import BUCKET, ObjectStore, object_store

from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Points, Segments
from ptal_ray.storage.folder import Folder
from ptal_ray.study import duration

sys.path.insert(0, str(Path(__file__).parent))

# On cores that others use too, threads wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: starved by the other tests
HANG_S = 900.0  # what takes longer hangs; anything else may be slow on a machine that others use
LONGEST = (  # files, the longest ones first; the first line has tests of clusters
    "nodes", "search_on_a_server", "faults", "jobs",
    "workers", "trial", "search_cli", "tutorial", "mlflow_tracker", "stages", "predict_outputs",
    "console", "untested", "predict_videos", "extract", "runner", "gpu_benchmark", "mlflow_views",
)  # fmt: skip
SHARED = Path(os.environ.get("PTAL_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`pytest -m cluster` imports only files that have such tests: the others take seconds."""
    if config.getoption("markexpr") == "cluster" and collection_path.suffix == ".py":
        return "mark.cluster" not in collection_path.read_text("utf-8") or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first: with several processes, none then waits long for the last file."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def material(path: str) -> Path:
    """Where a file of reference material lies: in the repository, or else beside it (../shared)."""
    own = Path(__file__).parent / path
    return own if path.startswith("golden/") and own.is_file() else SHARED / path


def shared(path: str) -> Path:
    """A file or folder of reference material; skips the test where it is absent."""
    if not material(path).exists():
        pytest.skip(f"reference material {path} is not beside the repository (../shared)")
    return material(path)


def golden_names(path: str, key: str = "cases") -> list[Any]:
    """The names of the cases in a file of golden values; one that skips where it is absent."""
    file = material(f"golden/{path}")
    if not file.exists():
        reason = f"reference material golden/{path} is not beside the repository (../shared)"
        return [pytest.param("absent", marks=pytest.mark.skip(reason=reason))]
    found = [str(case.get("name", k)) for k, case in enumerate(json.loads(file.read_text())[key])]
    assert found, f"{file}: no case under {key!r}"
    return found


def make_store(
    path: Path,
    *,
    train: int = 6,
    test: int = 3,
    snippets: int = 48,
    classes: int = 3,
    seed: int = 0,
) -> Path:
    """A small, learnable store: the features of an action are its class vector plus noise."""
    rng = np.random.default_rng(seed)
    names = tuple(f"Class{chr(65 + c)}" for c in range(classes))
    vectors = rng.standard_normal((classes, 16))
    with StoreWriter(
        path, name="tiny", classes=names, grid=Grid(stride_s=0.5), features="test", dtype="float32"
    ) as writer:
        for index in range(train + test):
            length = snippets + int(rng.integers(0, 9))
            first = np.arange(4, length - 8, 12) + rng.integers(0, 3)
            last = first + rng.integers(3, 7, len(first))
            label = rng.integers(0, classes, len(first))
            features = 0.3 * rng.standard_normal((length, 16))
            for start, end, c in zip(first, last, label, strict=True):
                features[start:end] += vectors[c]
            writer.add(
                f"video{index}",
                subset="train" if index < train else "test",
                features=features.astype(np.float32),
                duration_s=length / 2,
                annotations=Segments(
                    start_s=first / 2, end_s=last / 2, label=label, score=np.ones(len(first))
                ),
                points=Points(time_s=(first + last) / 4, label=label),
            )
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store with eight training videos."""
    return make_store(tmp_path_factory.mktemp("data") / "tiny", train=8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands that tests call set the threads of this process, by default to all CPUs; this takes
    it back before the test and before the fixtures of the next one."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def short_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates of the time of a search train a few steps, instead of three seconds."""
    monkeypatch.setattr(duration, "LEARN_STEPS", 5)


@pytest.fixture
def empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have empty files for plots, which take a second to draw."""

    def save(figure: Any, folder: Path, name: str) -> None:
        for kind in ("png", "svg"):
            (folder / f"{name}.{kind}").touch()
        plt.close(figure)

    monkeypatch.setattr("ptal_ray.reporting.plots.save", save)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the data that a test imports."""
    monkeypatch.setenv("PTAL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for a release, see `released_folder`."""
    (tmp_path / "release").mkdir()
    return tmp_path / "release"


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of an ablation are in this process: another one imports torch again, for seconds."""
    monkeypatch.setattr("ptal_ray.study.ablation.process_pool", ThreadPoolExecutor)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache."""
    monkeypatch.setenv("PTAL_CACHE", str(tmp_path / "here"))
    return tmp_path / "here"


@pytest.fixture
def shelf(server: ObjectStore, tmp_path: Path) -> Folder:
    """An address of this test alone."""
    return Folder.parse(f"s3://{BUCKET}/{tmp_path.name}")
