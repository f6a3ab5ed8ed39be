"""The available search spaces: names, methods and datasets, without parameters; and the title of
each method."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from ptal_ray.data.user_files import decoded
from ptal_ray.errors import ConfigError

POLICIES = ("race", "simple")  # allowed in a space; the first is the default

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A search space that `python -m ptal_ray.search NAME` finds.

    Args:
        name, method: of the space.
        dataset: its data; "" if `--dataset` selects it.
        steps: of all its trials, if none stops early; infinite if they depend on the data.
    """

    name: str
    method: str
    dataset: str
    steps: float


def space_folders() -> tuple[Path, ...]:
    """The folders of search spaces: in the working directory, in the package, beside it."""
    return (
        Path("search_spaces"),
        _PACKAGE / "search_spaces",  # of a wheel
        _PACKAGE.parent / "search_spaces",  # of a checkout
    )


def catalog() -> list[SpaceFile]:
    """The search spaces by method, then by name; of two with the same name, the first.

    Raises:
        ConfigError: a file is not a YAML mapping with a method.
    """
    found: dict[str, SpaceFile] = {}
    for folder in space_folders():
        for path in folder.glob("*.yaml"):
            if path.stem not in found:
                found[path.stem] = _space_file(path)
    return sorted(found.values(), key=lambda space: (space.method, space.name))


def title(method: str) -> str:
    """The first line of the docstring of a method, without importing it; "" for an unknown one."""
    folder = _PACKAGE.joinpath("methods", *method.split("."))
    known = (p for p in (folder / "__init__.py", folder.with_suffix(".py")) if p.is_file())
    if (path := next(known, None)) is None:
        return ""
    return (ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0].rstrip(".")


def _space_file(path: Path) -> SpaceFile:
    try:
        # The safe loader in C, which is ten times faster than the one in Python.
        plain = yaml.CSafeLoader(decoded(path)).get_single_data()
        budget = plain.get("budget") or {}
        return SpaceFile(
            name=path.stem,
            method=str(plain["method"]),
            dataset=str(plain.get("dataset") or ""),
            # PyYAML reads 1e3 as text
            steps=float(budget.get("max_steps", math.inf)) * float(budget.get("trials", 1)),
        )
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not a search space with a method ({line})") from error
