"""Every shipped search space loads, holds the defaults, and says how to run it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import make_store

from ptal_ray.data.datasets import DATASETS
from ptal_ray.methods import method as methods
from ptal_ray.space.space import load_space, parse_space

FILES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
OWN = {name.rpartition(".")[2]: name for name in methods.names()}  # without a dataset


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("own") / "tiny", train=9)


@pytest.fixture
def space(path, store):
    return load_space(path, dataset=str(store) if path.stem in OWN else None)


def test_every_method_has_a_space_for_data_of_ones_own():
    assert OWN.keys() <= {path.stem for path in FILES}


@pytest.mark.parametrize("name", [p.stem for p in FILES if p.stem.endswith("_watch")])
def test_data_of_ones_own_are_searched_as_watch(name, store):
    watch = load_space(name)
    own = load_space(name.removesuffix("_watch"), dataset=str(store))
    by_rule = {each.key for each in own.derived}
    for section in ("train", "decode"):
        missing = getattr(watch, section).keys() - getattr(own, section).keys()
        assert {f"{section}.{key}" for key in missing} <= by_rule


def test_the_space_loads_and_reads_back(path, space, store):
    assert space.name == path.stem
    if path.stem in OWN:
        assert (space.method, space.dataset) == (OWN[path.stem], str(store))
        assert space.derived
    else:
        method, _, data = space.name.removesuffix("_paper").rpartition("_")
        assert method == space.method.rpartition(".")[2] and data
        assert space.dataset in DATASETS
        assert not space.derived
    assert space.method in methods.names()
    assert parse_space(space.to_yaml(), name=space.name, source="again") == space


def test_the_defaults_lie_inside_the_ranges(space):
    assert space.train and space.decode
    assert space.first_params() is not None
    defaults = space.decode_defaults()
    for key, domain in space.decode.items():
        assert domain.contains(defaults[key]), f"decode.{key}: {defaults[key]}"


def test_every_corner_of_the_space_is_a_valid_configuration(space):
    plan = methods.load(space.method)
    for unit in (0.0, 0.5, 1 - 1e-9):
        train = {key: domain.sample(unit) for key, domain in space.train.items()}
        decode = {key: domain.sample(unit) for key, domain in space.decode.items()}
        plan.train_params(**space.resolve_train(train))
        dataclasses.replace(plan.decode_params(**space.decode_defaults()), **decode)


def test_batches_divide_among_the_workers(space):
    sizes = space.train["batch_size"].args if "batch_size" in space.train else [
        space.train_defaults()["batch_size"]
    ]  # fmt: skip
    assert all(size % space.resources.workers == 0 for size in sizes)


def test_rungs_grow_by_about_eta(space):
    steps = space.budget.report_steps
    assert len(steps) >= 3
    assert steps[-1] / steps[-2] > 1.3, "the last two reports are nearly the same"


def test_the_header_says_how_to_run_it(path, space):
    lines = path.read_text().splitlines()
    header = "\n".join(line for line in lines[: lines.index(f"method: {space.method}")])
    assert f"python -m ptal_ray.search {path.stem}" in header
    assert "Expect:" in header and "Searches:" in header
    if path.stem in OWN:
        assert f"python -m ptal_ray.search {path.stem} --dataset NAME" in header
    elif space.dataset != "watch":
        assert f"python -m ptal_ray.data import {space.dataset} --features DIR" in header
        for flag in DATASETS[space.dataset].flags.split():
            assert flag in header
    assert all(line.startswith("#") or not line for line in header.splitlines())
    assert all(len(line) <= 100 for line in lines)


def test_there_are_spaces():
    assert FILES
