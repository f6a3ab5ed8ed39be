"""Ctrl-C and SIGTERM at every command: one line, exit code 130, and nothing left behind."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import make_store

from ptal_ray.process.interruption import interruptible

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@contextmanager
def command(
    folder: Path, *words: object, python: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """`python -m ptal_ray.WORDS` in a process group of its own, as a terminal starts it."""
    process = subprocess.Popen(
        [sys.executable, *python, "-m", *(str(word) for word in words)],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path), "PTAL_DATA": str(folder / "data")},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM to the command alone."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def ended(process: subprocess.Popen[str]) -> str:
    """The one line that an interrupted command wrote last."""
    children = psutil.Process(process.pid).children(recursive=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not psutil.wait_procs(children, timeout=10)[1]
    return said


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Features, as one large file, and annotations of 60 videos."""
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "big.npy", np.random.default_rng(0).random((4000, 500), np.float32))
    videos = {}
    for n in range(60):
        (tmp_path / "f" / f"v{n}.npy").symlink_to(tmp_path / "big.npy")
        segment = {"segment": [2.0, 5.0], "label": "A"}
        subset = "train" if n % 2 else "test"
        videos[f"v{n}"] = {"duration": 4000.0, "subset": subset, "annotations": [segment]}
    (tmp_path / "gt.json").write_text(json.dumps({"database": videos}))
    return tmp_path / "gt.json"


def writing(name: str, truth: Path) -> list[object]:
    """The words that begin to write a store `x`."""
    if name == "import":
        rates = ["--simulate-points", "uniform", "--fps", "1", "--stride", "1"]
        return ["ptal_ray.data", name, "x", "--features", truth.with_name("f"),
                "--annotations", truth, *rates]  # fmt: skip
    return ["ptal_ray.data", name, "x", "--annotations", truth, "--stride-s", "0.1", "--dim",
            "512", "--workers", "2"]  # fmt: skip


@pytest.mark.parametrize("name", ["import", "simulate"])
@pytest.mark.parametrize(
    ("number", "flags"), [(signal.SIGINT, []), (signal.SIGTERM, ["--replace"])]
)
def test_a_store_that_is_being_written(name, number, flags, truth, tmp_path):
    if flags:
        make_store(tmp_path / "data" / "x")
    before = sorted(tmp_path.rglob("*"))
    with command(tmp_path, *writing(name, truth), *flags) as process:
        wait_for((tmp_path / "data" / ".x.partial" / "new" / "features.arrow").exists)
        stop(process, number)
        stop(process, number)  # an impatient user: cleaning up goes on
        assert ended(process) == "interrupted\n"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["import", "simulate"])
def test_the_next_import_cleans_up_after_a_killed_one(name, truth, tmp_path):
    with command(tmp_path, *writing(name, truth)) as process:
        wait_for((tmp_path / "data" / ".x.partial" / "new" / "features.arrow").exists)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert not psutil.wait_procs(children, timeout=10)[1]
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".x.partial"]
    make_store(tmp_path / "data" / "another")
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["another"]


READS = {
    "data import": ["x", "--features", "f", "--annotations", "pipe", "--points", "p", "--fps", "1",
                    "--stride", "1"],
    "data validate": ["x", "--features", "f", "--annotations", "pipe", "--points", "p", "--fps",
                      "1", "--stride", "1"],
    "data simulate": ["x", "--annotations", "pipe", "--stride-s", "1"],
    "evaluate": ["pipe", "predictions.json"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "number"),
    [*((name, signal.SIGINT) for name in READS), ("data validate", signal.SIGTERM)],
)
def test_a_file_that_is_being_read(name, number, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    module, *rest = name.split()
    with (
        command(tmp_path, f"ptal_ray.{module}", *rest, *READS[name]) as process,
        (tmp_path / "pipe").open("w"),  # waits until it is read
    ):
        stop(process, number)
        assert ended(process) == "interrupted\n"
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


STARTS = {  # a command, and the first slow import after its flags
    "data info x": "pyarrow",
    "evaluate gt.json predictions.json": "numpy",
    "train x": "torch",
    "ablate x --variant a: --out y": "torch",
    "extract x --out y": "torch",
    "predict x --features y --out z": "torch",
    "report x": "pyarrow",
    "profile suppression": "torch",
    "search x": "torch",
}


@pytest.mark.parametrize(
    ("start", "number"),
    [*((start, signal.SIGINT) for start in STARTS), ("search x", signal.SIGTERM)],
)
def test_the_start_which_takes_seconds(start, number, tmp_path):
    words = f"ptal_ray.{start}".split()
    with command(tmp_path, *words, python=("-v",)) as process:
        line = ""
        while f"import '{STARTS[start]}." not in line:
            line = process.stderr.readline()
            assert line
        stop(process, number)
        said = ended(process)
    assert "Traceback" not in said and said.count("interrupted\n") == 1


TRAINS = {
    "train": ["--out", "runs/one"],
    "ablate": ["--variant", "a:", "--seeds", "2", "--jobs", "2", "--out", "reports/one"],
}


@BOTH
@pytest.mark.parametrize("module", TRAINS)
def test_a_training(module, number, tmp_path):
    make_store(tmp_path / "data" / "tiny")
    words = ["lacp_watch", "--dataset", "tiny"]
    for key in ("max_steps", "min_steps"):  # the first report, with its checkpoint, is far away
        words += ["--set", f"budget.{key}=1000000"]
    with command(tmp_path, f"ptal_ray.{module}", *words, *TRAINS[module]) as process:
        workers = psutil.Process(process.pid)
        if module == "train":
            wait_for((tmp_path / "runs" / "one").exists)
        else:
            wait_for(
                lambda: len(workers.children()) == 3
            )  # two, and the tracker of multiprocessing
        time.sleep(2)
        stop(process, number)
        assert ended(process) == "interrupted\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_signal_that_is_to_be_ignored_is_ignored(tmp_path):
    code = (
        "import signal, os; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from ptal_ray.process.interruption import interruptible\n"
        "@interruptible\n"
        "def main():\n    os.kill(os.getpid(), signal.SIGINT)\n    return 0\n"
        "raise SystemExit(main())"
    )
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


class Thing:
    """What a weak reference can see go."""


def test_a_signal_inside_the_import_system_is_raised_after_it() -> None:
    """Python drops what is raised in a callback of a weak reference, as the import system has."""
    text = "def callback(ref):\n  kill(getpid(), SIGINT)\n  for _ in range(100):\n    pass"
    names = {"kill": os.kill, "getpid": os.getpid, "SIGINT": signal.SIGINT}
    exec(compile(text, "<frozen importlib._bootstrap>", "exec"), names)

    @interruptible
    def main() -> int:
        thing = Thing()
        seen = weakref.ref(thing, names["callback"])
        del thing
        time.sleep(10)
        return int(seen() is None)

    began = time.monotonic()
    assert main() == 130
    assert time.monotonic() - began < 5


def test_a_signal_during_an_import_is_raised_after_it(tmp_path, monkeypatch) -> None:
    """The initialization of many extension modules discards what is raised in it."""
    (tmp_path / "discarding_module.py").write_text(
        "import os, signal\n"
        "def work():\n    os.kill(os.getpid(), signal.SIGINT)\n    return sum(range(100))\n"
        "try:\n    done = work()\nexcept BaseException:\n    done = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @interruptible
    def main() -> int:
        module = importlib.import_module("discarding_module")
        time.sleep(10)
        return int(module.done is None)

    began = time.monotonic()
    assert main() == 130
    assert time.monotonic() - began < 5


def test_a_signal_while_numba_compiles_is_raised_after_it() -> None:
    """A callback of ctypes discards what is raised in it, with a line that nobody asked for."""
    source = (
        "import os, signal\n"
        "def notify():\n    os.kill(os.getpid(), signal.SIGINT)\n    return sum(range(100))\n"
    )
    names: dict[str, Any] = {}
    exec(compile(source, "/site-packages/llvmlite/binding/executionengine.py", "exec"), names)
    told = ctypes.CFUNCTYPE(ctypes.c_int)(names["notify"])

    @interruptible
    def main() -> int:
        done = told()
        time.sleep(10)
        return done

    began = time.monotonic()
    assert main() == 130
    assert time.monotonic() - began < 5
