"""What code does, as a hash: the same for two texts that differ in comments and docstrings alone.

A number that people raise when a stage changes would be shorter, and forgotten once: then trials
start from the weights of other code. This hash changes too often at worst, by a name or an order
of functions, and the stage is trained again.
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
        modules: dotted names, that of the package first.
        package: where its files lie.
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
    """The file of a module; None for a name inside one."""
    place = package.joinpath(*name.split(".")[1:])
    choices = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in choices if path.is_file()), None)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of the package that a module imports, wherever in it: modules, or what is in them."""
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
