"""The walkthroughs of CONTRIBUTING.md, followed in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store
from toy_study import SPACE

import ptal_ray

PACKAGE = Path(ptal_ray.__file__).parent
TESTS = Path(__file__).parent
TEXT = (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8")
MOST_LINES = 60  # of the method that is copied


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A checkout with the package alone, and data in it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "ptal_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "search_spaces").mkdir()
    return folder


def run(copy: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(copy), "PTAL_DATA": str(copy / "data")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def section(heading: str) -> str:
    found = re.search(rf"^### {heading}$(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_a_method_is_one_folder_and_one_space(copy):
    text = section("A method")
    assert "tests/toy_method" in text and "ptal_ray/methods/<name>/" in text
    source = (TESTS / "toy_method" / "__init__.py").read_text()
    assert len(source.splitlines()) <= MOST_LINES
    make_store(copy / "data" / "tiny", train=8, test=3)
    shutil.copytree(TESTS / "toy_method", copy / "ptal_ray" / "methods" / "toy")
    (copy / "search_spaces" / "toy_tiny.yaml").write_text(SPACE)
    found = json.loads(run(copy, "ptal_ray", "list", "--json"))
    assert {"name": "toy_tiny", "method": "toy", "dataset": "tiny"} in found["spaces"]
    shown = run(copy, "ptal_ray.train", "toy_tiny", "--test", "--out", "runs/toy")
    assert "test mAP" in shown
    assert (copy / "runs" / "toy" / "model.pt").exists()


def test_a_layout_is_one_reader_and_one_entry(copy):
    text = section("A dataset")
    assert "tests/toy_reader.py" in text and "`LAYOUTS`" in text and "`DATASETS`" in text
    release = copy / "release"
    (release / "features").mkdir(parents=True)
    lines, rng = [], np.random.default_rng(0)
    for number in range(6):
        np.save(release / "features" / f"v{number}.npy", rng.random((10, 4), np.float32))
        subset = "test" if number > 3 else "train"
        lines += [f"v{number} {subset} 10 1 4 run", f"v{number} {subset} 10 5 9 jump"]
    (release / "instances.txt").write_text("\n".join(lines))
    readers = copy / "ptal_ray" / "data" / "readers"
    shutil.copy(TESTS / "toy_reader.py", readers / "toy.py")
    layouts = (readers / "layouts.py").read_text()
    entry = '    "plain": "plain",\n'
    assert entry in layouts
    (readers / "layouts.py").write_text(layouts.replace(entry, f'{entry}    "toy": "toy",\n'))
    words = ["--layout", "toy", "release", "--simulate-points", "uniform"]
    run(copy, "ptal_ray.data", "import", "toyset", *words)
    facts = json.loads(run(copy, "ptal_ray.data", "info", "toyset", "--json"))
    assert facts["classes"] == ["jump", "run"]
    assert facts["subsets"]["train"]["instances"] == 8


TRIED = """
import optuna
from ptal_ray.policy.samplers import sampler
for past in (None, []):
    study = optuna.create_study(sampler=sampler("qmc", [0, 1], past))
    print(type(study.sampler).__name__, 0 <= study.ask().suggest_float("x", 0, 1) <= 1)
"""


def test_a_searcher_is_a_name_and_a_sampler(copy):
    text = section("A searcher")
    assert "`ptal_ray/study/choices.py`" in text
    assert "`sampler` of `ptal_ray/policy/samplers.py`" in text
    for path, before, after in (
        ("study/choices.py", 'SEARCHERS = ("tpe", ', 'SEARCHERS = ("tpe", "qmc", '),
        (
            "policy/samplers.py",
            '        if name == "tpe":\n',
            '        if name == "qmc":\n            from optuna.samplers import QMCSampler\n\n'
            '            return QMCSampler(seed=draw)\n        if name == "tpe":\n',
        ),
    ):
        file = copy / "ptal_ray" / path
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))
    assert "{tpe,qmc," in run(copy, "ptal_ray.search", "--help")
    (copy / "tried.py").write_text(TRIED)
    assert run(copy, "tried") == "QMCSampler True\n" * 2


def test_the_order_of_imports_is_the_one_that_is_tested():
    from test_layering import LEVELS

    line = re.search(r"`(errors < .*?)`", TEXT, re.DOTALL)
    assert line
    told = [
        {name.strip() for name in level.split(",")}
        for level in " ".join(line[1].split()).split("<")
    ]
    assert told[:-1] == [set(level) for level in LEVELS[:-1]]
    assert told[-1] == {"commands"}


def test_the_contracts_of_a_method_are_listed():
    from test_methods import __file__ as methods
    from test_trial import __file__ as trials

    named = re.findall(r"`(test_\w+)`", section("A method"))
    assert len(named) >= 8
    defined = Path(methods).read_text() + Path(trials).read_text()
    assert [name for name in named if f"def {name}(" not in defined] == []
