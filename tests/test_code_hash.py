"""The hash of code says what a stage depends on, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ptal_ray.training.code_hash import PACKAGE, code_hash

FILES = {
    "__init__.py": "",
    "first.py": (
        '"""Says what."""\nfrom small.parts import second\n\ndef f(x):\n    return second.g(x)\n'
    ),
    "parts/__init__.py": "",
    "parts/second.py": "def g(x):\n    from small.third import LIMIT\n    return min(x, LIMIT)\n",
    "third.py": "LIMIT = 3\n",
    "apart.py": "import small.first\nOTHER = 1\n",
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A package of which `first` needs all but `apart`."""
    for name, text in FILES.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "small"


def changed(small: Path, name: str, old: str, new: str) -> bool:
    """Whether the hash of `first` is another one after a change."""
    path = small / name
    before = code_hash("small.first", package=small)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    code_hash.cache_clear()
    return code_hash("small.first", package=small) != before


def test_comments_docstrings_and_layout_do_not_count(small: Path) -> None:
    assert not changed(small, "first.py", "Says what.", "Says it better.")
    assert not changed(small, "third.py", "LIMIT = 3", "# as the paper\n\nLIMIT = (3)")
    assert not changed(small, "parts/second.py", "def g(x):\n", 'def g(x):\n    """The least."""\n')


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("first.py", "second.g(x)", "second.g(x) + 1"),
        ("parts/second.py", "min", "max"),
        ("third.py", "3", "4"),  # imported by what it imports, in a function
    ],
)
def test_what_is_done_counts_also_in_what_is_imported(
    small: Path, name: str, old: str, new: str
) -> None:
    assert changed(small, name, old, new)


def test_what_is_not_imported_does_not_count(small: Path) -> None:
    assert not changed(small, "apart.py", "1", "2")


def test_a_stage_depends_on_its_operations_and_not_on_other_methods_or_the_study(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "ptal_ray"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def now() -> str:
        code_hash.cache_clear()
        names = ("ptal_ray.methods.potloc.base", "ptal_ray.training.stages")
        return code_hash(*names, package=copy)

    found = now()
    for name in ("methods/lacp/loss.py", "study/study.py", "backends/local.py", "report.py"):
        (copy / name).write_text((copy / name).read_text() + "\nOTHER = 1\n")
    assert now() == found
    for name in ("ops/mil.py", "training/optim.py", "methods/potloc/params.py"):
        (copy / name).write_text((copy / name).read_text() + "\nOTHER = 1\n")
        assert found != (found := now())
