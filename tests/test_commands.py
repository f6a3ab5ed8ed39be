"""What every command has in common: its help is fast, because it imports nothing that is slow."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import ptal_ray

ROOT = Path(ptal_ray.__file__).parent
COMMANDS = sorted(p.stem for p in ROOT.glob("*.py") if p.stem not in ("__init__", "errors"))
DATA = ("import", "validate", "points", "info", "simulate")
HELPS = [[f"ptal_ray.{name}"] for name in COMMANDS]
HELPS += [["ptal_ray.data"], *(["ptal_ray.data", name] for name in DATA)]
SLOW = ("torch", "ray", "mlflow", "optuna", "numba", "pyarrow", "matplotlib")
MOST_S = 0.5
MOST_LINES = 150
LOADED = f"""
import json, runpy, sys
module, *words = sys.argv[1:]
sys.argv = [module, *words, "--help"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))
"""


def name(words: list[str]) -> str:
    return " ".join(words)


@pytest.mark.parametrize("words", HELPS, ids=name)
def test_help_imports_nothing_slow(words):
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *text, loaded = done.stdout.splitlines()
    assert text[0].startswith("usage: ")
    assert json.loads(loaded) == []


@pytest.mark.parametrize("words", HELPS, ids=name)
def test_help_is_fast(words):
    def seconds() -> float:
        """Of processor time, which does not grow where others use the machine."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", *words, "--help"]
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < MOST_S


@pytest.mark.parametrize("command", [*COMMANDS, "data/__main__"])
def test_a_command_is_short(command):
    lines = (ROOT / f"{command}.py").read_text().splitlines()
    assert len(lines) <= MOST_LINES
