"""The search spaces that lie here: their names, methods and datasets, without their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from ptal_ray.errors import ConfigError

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A search space that `python -m ptal_ray.search NAME` finds."""

    name: str
    method: str
    dataset: str


def space_folders() -> tuple[Path, ...]:
    """Where a name of a search space is looked up: here, in the package, beside it."""
    return (
        Path("search_spaces"),
        _PACKAGE / "search_spaces",  # of a wheel
        _PACKAGE.parent / "search_spaces",  # of a checkout
    )


def catalog() -> list[SpaceFile]:
    """The search spaces by method, then by name; a name that two folders have counts once.

    Raises:
        ConfigError: a file is no YAML mapping with a method and a dataset.
    """
    found: dict[str, SpaceFile] = {}
    for folder in space_folders():
        for path in folder.glob("*.yaml"):
            if path.stem not in found:
                found[path.stem] = _space_file(path)
    return sorted(found.values(), key=lambda space: (space.method, space.name))


def _space_file(path: Path) -> SpaceFile:
    try:
        # The loader in C is ten times faster than the one in Python, and as safe.
        plain = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
        return SpaceFile(name=path.stem, method=plain["method"], dataset=plain["dataset"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: not a search space with a method and a dataset ({line})"
        ) from error
