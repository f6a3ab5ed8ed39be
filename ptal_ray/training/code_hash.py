"""A hash of code that ignores comments and docstrings.

A version number raised by hand could be forgotten; trials would then start from the weights of
other code. At worst this hash changes without need, by a renaming or a new order of functions, and
the stage is trained again.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def code_hash(*modules: str, package: Path = PACKAGE) -> str:
    """A hash of modules and of everything in the package that they import, directly or not.

    Args:
        modules: dotted names that start with the package.
        package: its folder.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file(name, package)
        if name in found or path is None:
            continue
        tree = _without_prose(ast.parse(path.read_bytes()))
        found[name] = ast.dump(tree)
        waiting += _imported(tree, package.name)
    text = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()


def _file(name: str, package: Path) -> Path | None:
    """The file of a module; None for a name inside a module."""
    place = package.joinpath(*name.split(".")[1:])
    choices = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in choices if path.is_file()), None)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names in the package that a module imports anywhere: modules, or names in modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == package)


def _without_prose(tree: ast.Module) -> ast.Module:
    """A module without docstrings and other bare strings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_text(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
