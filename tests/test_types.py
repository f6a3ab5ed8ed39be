"""Hyperparameters, events and results are typed: mypy sees a name that they do not have."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import ptal_ray
from ptal_ray.methods.method import load, names
from ptal_ray.study.event_types import KINDS

PACKAGE = Path(ptal_ray.__file__).parent
# Packages whose types do not matter here are not read, so that an empty cache costs seconds.
CONFIG = """
[mypy]
strict = true
[mypy-ptal_ray.*]
follow_imports = silent
[mypy-torch.*,numpy.*,pyarrow.*,yaml.*,numba.*]
follow_imports = skip
ignore_missing_imports = true
"""


def methods() -> list[str]:
    """All methods and the stages before them."""
    found = list(names())
    for name in found:
        stage = load(name).stage
        if stage is not None and stage.method not in found:
            found.append(stage.method)
    return found


def uses(name: str, suffix: str) -> list[str]:
    """Lines that read a parameter of a method, of either class, with `suffix` behind its name."""
    method = load(name)
    alias = name.replace(".", "_")
    train = fields(method.train_params)[-1].name
    found = [
        f"from ptal_ray.methods.{name} import METHOD as {alias}",
        f"{alias}.train_params().{train}{suffix}",
    ]
    if decode := fields(method.decode_params):
        found.append(f"{alias}.decode_params().{decode[-1].name}{suffix}")
    return found


CORE = """
from ptal_ray.methods.method import TrainParams
from ptal_ray.training.optim import learning_rate
def first(hp: TrainParams) -> float:
    return hp.warmup{suffix} + learning_rate(hp, 0, 1)
"""
EVENTS = """
from ptal_ray.study import event_types
from ptal_ray.study.events import read_events
from ptal_ray.study.results import Failed, Reported
from ptal_ray.study.view import StudyView
def times() -> list[float]:
    return [event.time{suffix} for event in read_events("")]
def told(result: Failed | Reported) -> str:
    return result.message{suffix} if isinstance(result, Failed) else str(result.step{suffix})
def view(view: StudyView) -> list[object]:
    return [view.study.seed{suffix}, view.trials[0].reports[0].objective{suffix}]
"""


def snippet(suffix: str) -> str:
    """Code that reads a parameter of the core, some of every method, and fields of events."""
    own = "\n".join(line for name in methods() for line in uses(name, suffix))
    events = [
        f"def of_{kind}(e: event_types.{made.__name__}) -> object: return e.{field.name}{suffix}"
        for kind, made in KINDS.items()
        for field in fields(made)[-1:]
    ]
    return "\n".join([CORE.format(suffix=suffix), own, EVENTS.format(suffix=suffix), *events])


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """The lines of each snippet that mypy complains of, from one run."""
    folder = tmp_path_factory.mktemp("snippets")
    for word, suffix in (("right", ""), ("misspelt", "x")):
        (folder / f"{word}.py").write_text(snippet(suffix))
    (folder / "mypy.ini").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "right.py", "misspelt.py"],
        cwd=folder, env={"MYPYPATH": str(PACKAGE.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[int]] = {"right": set(), "misspelt": set()}
    for line in done.stdout.splitlines():
        file, number, rest = (*line.split(":", 2), "", "")[:3]
        if "error:" in rest:
            found[file.removesuffix(".py")].add(int(number))
    return found


def lines(suffix: str) -> set[int]:
    """Numbers of the lines that read a parameter or a field."""
    every = enumerate(snippet(suffix).splitlines(), 1)
    reads = ("().", "hp.", "event.time", "result.message", "view.study", " e.")
    return {number for number, line in every if any(word in line for word in reads)}


def test_a_misspelt_name_is_an_error(complaints: dict[str, set[int]]) -> None:
    assert complaints["misspelt"] == lines("x")


def test_the_same_lines_spelt_right_are_none(complaints: dict[str, set[int]]) -> None:
    assert len(lines("")) > len(methods()) and not complaints["right"]


def test_no_function_takes_just_any_hyperparameters() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for given in [*node.args.args, *node.args.kwonlyargs]:
                    if given.arg == "hp":
                        place = f"{path}:{node.lineno}: hp"
                        assert given.annotation is not None, f"{place} has no type"
                        assert ast.unparse(given.annotation) != "Any", f"{place}: Any"
