"""The defaults of the shipped spaces are what papers and released code state for their data."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptal_ray.space.space import load_space

HERE = Path(__file__).parent
TABLE: dict[str, Any] = yaml.load(
    (HERE / "golden" / "paper_settings.yaml").read_text(), yaml.CSafeLoader
)
OURS = {None, "watch", "hapt"}  # data of one's own, and data sets that no paper of these has
BENCHMARKS = sorted(
    path.stem
    for path in (HERE.parent / "search_spaces").glob("*.yaml")
    if yaml.load(path.read_text("utf-8"), yaml.CSafeLoader).get("dataset") not in OURS
)


def test_every_space_of_a_benchmark_is_in_the_table() -> None:
    assert sorted(TABLE["spaces"]) == BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_defaults_are_what_the_sources_state(name: str) -> None:
    space = load_space(HERE.parent / "search_spaces" / f"{name}.yaml")
    stated = TABLE["spaces"][name]
    for section, defaults in (
        ("train", space.train_defaults()),
        ("decode", space.decode_defaults()),
    ):
        for key, (value, source, place) in stated[section].items():
            assert source in TABLE["sources"], f"{section}.{key}: unknown source {source}"
            where = f"{name}: {section}.{key}: {source}, {place}"
            assert (key, defaults[key]) == (key, value), where
            assert type(defaults[key]) is type(value), where


def test_the_trial_of_the_defaults_is_the_published_one() -> None:
    first = load_space(HERE.parent / "search_spaces" / "apl_anet.yaml").first_params()
    assert first is not None
    assert first["lr"] == 1e-3


@pytest.mark.parametrize("name", sorted(TABLE["epochs"]))
def test_a_full_trial_has_the_stated_epochs_of_the_real_batch(name: str) -> None:
    path = HERE.parent / "search_spaces" / f"{name}.yaml"
    space, stated = load_space(path), TABLE["epochs"][name]
    train = space.train_defaults()
    videos = TABLE["videos"][space.dataset]
    fit = videos - round(space.selection.val_fraction * videos)
    trained = fit - round(fit * train.get("labelled_fraction", 1.0)) or fit
    wanted = stated.get("ours", stated["stated"][0])
    windows, near = stated.get("windows", 1), partial(pytest.approx, rel=0.01)

    def passes(steps: int, batch_size: int, videos: int) -> float:
        return steps * batch_size / (videos * windows)

    assert passes(space.budget.max_steps, train["batch_size"], trained) == near(wanted)
    for stage, size in (("pretrain", "batch_size"), ("base", "base_batch_size")):
        if stage in stated:
            assert passes(train[f"{stage}_steps"], train[size], fit) == near(stated[stage][0])
    said = re.findall(r"trial passes (\d+) times", path.read_text("utf-8").replace("\n# ", " "))
    assert said in ([], [str(wanted)])
