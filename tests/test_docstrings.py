"""What docstrings point to exists."""

from __future__ import annotations

import ast
import keyword
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import ptal_ray

PACKAGE = Path(ptal_ray.__file__).parent
CITED = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)*)`")
SECTIONS = {"selection", "budget", "resources", "final", "train", "decode"}  # of a search space
OTHERS = {"reuse_actors", "start_frame", "point_gaussian"}  # of Ray and of released label files
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def used(tree: ast.AST) -> Iterator[str]:
    """All names that code defines, imports, reads or has as texts."""
    for node in ast.walk(tree):
        for attribute in ("id", "attr", "arg", "name", "asname", "module", "value"):
            text = getattr(node, attribute, None)
            if isinstance(text, str):
                yield from text.split(".")


def modules_and_classes() -> dict[str, set[str]]:
    """The names in each module, folder and class of the package, by its own last name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        own = path.parent if path.stem == "__init__" else path.with_suffix("")
        tree = ast.parse(path.read_text())
        found[own.name] |= set(used(without_docstrings(tree)))
        found[own.parent.name].add(own.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name] |= set(used(node))
    for held in list(found.values()):  # of a base class too
        held |= set.union(set(), *(found[n] for n in held if n in found and n[0].isupper()))
    return found


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree, with docstrings emptied."""
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return tree


def docstrings() -> Iterator[tuple[str, str]]:
    """(place, text) of every docstring."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", text


def test_names_in_docstrings_exist() -> None:
    known = modules_and_classes()
    every = set(known).union(*known.values()) | set(keyword.kwlist) | OTHERS
    files = {path.name for path in PACKAGE.rglob("*.py")}
    seen = 0
    for place, text in docstrings():
        for cited in CITED.findall(text):
            missing = f"{place} cites `{cited}`, which is not there"
            first, *rest = cited.split(".")
            if rest == ["py"]:
                assert cited in files, missing
            elif not rest:
                assert first in every, missing
            elif first in known and rest != ["json"]:  # else of another package, or of an object
                seen += 1
                for owner, name in zip((first, *rest), rest, strict=False):
                    stated = owner in SECTIONS and name in every
                    assert stated or owner not in known or name in known[owner], missing
    assert seen > 30
