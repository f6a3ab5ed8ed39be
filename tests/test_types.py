"""Hyperparameters are typed: mypy sees a name that a method does not have."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import ptal_ray
from ptal_ray.methods.method import load, names

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


def snippet(suffix: str) -> str:
    """Code that reads a parameter of the core and some of every method."""
    own = "\n".join(line for name in methods() for line in uses(name, suffix))
    return CORE.format(suffix=suffix) + own


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
    """Numbers of the lines that read a parameter."""
    every = enumerate(snippet(suffix).splitlines(), 1)
    return {number for number, line in every if "()." in line or "hp." in line}


def test_a_misspelt_parameter_is_an_error(complaints: dict[str, set[int]]) -> None:
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
