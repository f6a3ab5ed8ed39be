"""The YAML loader: what it reads, and that every mistake is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ptal_ray.errors import ConfigError
from ptal_ray.methods import method as methods
from ptal_ray.methods.method import DecodeParams, Method, TrainParams, param
from ptal_ray.space.domain import Domain
from ptal_ray.space.space import SearchSpace, load_space, parse_space


@dataclass(frozen=True, kw_only=True)
class ToyTrain(TrainParams):
    width: int = param(64, doc="channels", source="PROPOSED", allowed=(8, 1024))
    distance: str = param(
        "cosine", doc="metric", source="PROPOSED", allowed=("cosine", "euclid", "off")
    )
    residual: bool = param(True, doc="skip connection", source="PROPOSED")


@dataclass(frozen=True, kw_only=True)
class ToyDecode(DecodeParams):
    nms_tiou: float = param(0.5, doc="NMS threshold", source="P", allowed=(0.0, 1.0))
    top: int = param(200, doc="detections kept", source="P", allowed=(1, 1000))


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    unused = {k: None for k in ("build", "loss", "scores", "decode")}
    found = Method(
        name="toy", supervision="point", train_params=ToyTrain, decode_params=ToyDecode, **unused
    )
    monkeypatch.setattr(methods, "load", lambda name: found)
    monkeypatch.setattr(methods, "names", lambda: ("toy",))


HEAD = "method: toy\ndataset: watch\nbudget: {trials: 8, min_steps: 10, max_steps: 100}\n"


def read(text: str, *overrides: str) -> SearchSpace:
    return parse_space(text, name="toy_watch", source="toy.yaml", overrides=overrides)


def test_a_whole_file():
    space = read(
        """
method: toy
dataset: watch
selection: {metric: val, val_fraction: 0.3, cross_fit: off}
budget: {trials: 8, min_steps: 10, max_steps: 100, eta: 4}
resources: {workers: 2, gpus_per_worker: 0.5, precision: bf16}
train:
  lr: {loguniform: [1e-5, 1e-3]}
  width: {choice: [32, 64]}
  distance: off
  residual: no
decode:
  nms_tiou: {uniform: [0, 1]}
final: {top: 2}
"""
    )
    assert space.train == {
        "lr": Domain(kind="loguniform", args=(1e-5, 1e-3)),
        "width": Domain(kind="choice", args=(32, 64)),
    }
    assert space.train_fixed == {"distance": "off", "residual": False}
    assert space.decode == {"nms_tiou": Domain(kind="uniform", args=(0.0, 1.0))}
    assert isinstance(space.decode["nms_tiou"].args[0], float)
    assert (space.selection.val_fraction, space.selection.cross_fit) == (0.3, False)
    assert (space.resources.workers, space.resources.precision) == (2, "bf16")
    assert (space.final.top, space.final.seeds) == (2, 3)
    assert space.budget.report_steps == (10, 40, 100)
    assert space.train_defaults()["width"] == 64
    assert space.resolve_train({"width": 32})["width"] == 32
    assert space.resolve_train({})["distance"] == "off"
    assert space.first_params() == {"lr": 1e-4, "width": 64}
    assert set(space.train_defaults()) >= {"lr", "batch_size", "width", "distance", "residual"}


def test_a_resolved_space_reads_back_from_json_and_from_yaml():
    space = read(HEAD + "train:\n  lr: {loguniform: [1e-5, 1e-3]}\n  distance: off\n")
    assert read(json.dumps(space.as_dict())) == space
    assert read(space.to_yaml()) == space


DEFAULTED = HEAD + (
    "train: {lr: {loguniform: [1e-5, 1e-1], default: 0.01}, residual: {choice: [yes, no], "
    "default: no}, width: {randint: [8, 99]}}\ndecode: {top: {randint: [1, 9], default: 5}}\n"
)


def test_a_searched_parameter_may_have_a_default_of_its_own():
    space = read(DEFAULTED)
    assert space.train["lr"] == Domain(kind="loguniform", args=(1e-5, 1e-1), default=0.01)
    assert space.first_params() == {"lr": 0.01, "residual": False, "width": 64}
    assert space.train_params().lr == 0.01
    assert space.decode_defaults() == {"nms_tiou": 0.5, "top": 5}
    assert space.resolve_train({"lr": 0.02})["residual"] is False
    assert read(DEFAULTED, "train.lr={uniform: [1e-5, 1]}").train_defaults()["lr"] == 1e-4


def test_defaults_of_searched_parameters_survive_writing_and_freezing():
    space = read(DEFAULTED)
    assert read(json.dumps(space.as_dict())) == space
    assert read(space.to_yaml()) == space
    assert Domain.from_dict(space.train["residual"].as_dict()) == space.train["residual"]
    frozen = space.freeze({"lr": 0.02}, {"top": 3})
    assert (frozen.train_defaults()["lr"], frozen.decode_defaults()["top"]) == (0.02, 3)
    assert frozen.train_defaults()["residual"] is False


def test_a_frozen_space_runs_again_with_these_values():
    space = read(HEAD + "train: {lr: {uniform: [0.1, 0.5]}}\ndecode: {top: {randint: [1, 9]}}\n")
    again = read(space.freeze({"lr": 0.25}, {"top": 3}).to_yaml())
    assert (again.train, again.decode) == ({}, {})
    assert again.train_defaults()["lr"] == 0.25
    assert again.decode_defaults()["top"] == 3


def test_the_defaults_are_not_suggested_outside_their_domain():
    assert read(HEAD + "train: {lr: {uniform: [0.1, 0.5]}}\n").first_params() is None


def test_report_steps_end_with_max_steps_once():
    assert read(HEAD).budget.report_steps == (10, 30, 90, 100)
    assert read(HEAD, "budget.max_steps=90").budget.report_steps == (10, 30, 90)
    assert read(HEAD, "budget.max_steps=10").budget.report_steps == (10,)


def test_overrides_use_the_same_reader():
    text = HEAD + "selection: val\ntrain: {lr: 1e-3}\n"
    space = read(
        text,
        "train.lr={loguniform: [1e-5, 1e-3]}",
        "train.residual=off",
        "budget.trials=3",
        "selection.val_fraction=0.5",
        "decode.top=7",
        "dataset=other",
    )
    assert space.train == {"lr": Domain(kind="loguniform", args=(1e-5, 1e-3))}
    assert space.train_fixed == {"residual": False}
    assert (space.budget.trials, space.selection.val_fraction) == (3, 0.5)
    assert (space.decode_fixed, space.dataset) == ({"top": 7}, "other")


@pytest.mark.parametrize("text", ["selection: val\n", "selection: {metric: val}\n", ""])
def test_the_word_of_earlier_versions_is_map(text):
    space = read(HEAD + text)
    assert space.selection.metric == "map"
    assert "metric: map" in space.to_yaml()
    again = read(HEAD + text, "selection.metric=points", "selection.fold_seed=3")
    assert (again.selection.metric, again.selection.fold_seed) == ("points", 3)
    assert read(HEAD + text, "selection=points").selection.metric == "points"


MISTAKES = [
    # text after the head, what the message must hold
    ("train: {lrr: 1e-3}", ["toy.yaml:4: train.lrr", "did you mean 'lr'", "batch_size"]),
    ("train:\n  nms_tiou: 0.5", ["toy.yaml:5: train.nms_tiou", "belongs in decode:"]),
    ("decode: {lr: 1e-3}", ["decode.lr", "belongs in train:"]),
    ("lr: 1e-3", ["toy.yaml:4: lr", "belongs in train:"]),
    ("trian: {lr: 1e-3}", ["trian", "did you mean 'train'"]),
    ("train: {lr: fast}", ["train.lr", "'fast'", "number in [1e-06, 1.0]"]),
    ("train: {lr: off}", ["train.lr", "'off' is not a number"]),
    ("train: {lr: .nan}", ["train.lr", "not a number"]),
    ("train: {lr: .inf}", ["train.lr"]),
    ("train: {lr: 2.0}", ["train.lr", "2.0 is not allowed", "[1e-06, 1.0]"]),
    ("train: {lr:}", ["train.lr", "has no value"]),
    ("train: {lr: ~}", ["train.lr", "has no value"]),
    ("train: {width: 64.5}", ["train.width", "'64.5' is not an integer"]),
    ("train: {width: true}", ["train.width", "'true'"]),
    ("train: {residual: 2}", ["train.residual", "true or false"]),
    ("train: {distance: cosin}", ["did you mean 'cosine'", "cosine, euclid, off"]),
    ("train: {distance: {choice: [cosine, cosin]}}", ["train.distance", "'cosin'"]),
    ("train: {lr: [1e-4, 1e-3]}", ["train.lr", "a list is not a domain"]),
    ("train: {lr: {}}", ["train.lr", "write one domain"]),
    ("train: {lr: {uniform: [0.1, 0.2], choice: [1]}}", ["write one domain", "2 domains"]),
    ("train: {lr: {default: 0.1}}", ["train.lr", "write one domain", "0 domains"]),
    ("train: {lr: {uniform: [0.1, 0.2], default: 0.3}}", ["train.lr.default: 0.3", "[0.1, 0.2]"]),
    ("train: {lr: {uniform: [0.1, 0.2], default: x}}", ["train.lr.default: 'x' is not a number"]),
    ("train: {lr: {uniform: [0.1, 0.2], default: 2}}", ["train.lr.default: 2.0 is not allowed"]),
    ("train: {lr: {uniform: [0.1, 0.2], default:}}", ["train.lr.default: has no value"]),
    ("train: {lr: {uniform: [0.1, 0.2], default: [0.1]}}", ["train.lr.default: must be a single"]),
    (
        "train: {width: {choice: [32, 64], default: 48}}",
        ["default: 48 is outside choice [32, 64]"],
    ),
    ("decode: {top: {randint: [1, 9], default: 9}}", ["decode.top.default: 9 is outside"]),
    ("train: {lr: {uniform: [0.1, 0.2], defualt: 0.1}}", ["write one domain", "2 domains"]),
    ("train: {lr: {logunifrm: [0.1, 0.2]}}", ["did you mean 'loguniform'"]),
    ("train: {lr: {randint: [1, 5]}}", ["'randint' is not for this parameter", "loguniform"]),
    ("train: {width: {uniform: [16, 64]}}", ["'uniform' is not for", "randint"]),
    ("train: {residual: {randint: [0, 2]}}", ["allowed are choice"]),
    ("train: {lr: {uniform: 0.1}}", ["uniform takes a list [low, high]"]),
    ("train: {lr: {uniform: [0.1]}}", ["uniform takes [low, high]; got 1"]),
    ("train: {lr: {uniform: [0.1, x]}}", ["'x' is not a number"]),
    ("train: {lr: {uniform: [0.2, 0.2]}}", ["low < high"]),
    ("train: {lr: {uniform: [0.2, 0.1]}}", ["low < high"]),
    ("train: {lr: {loguniform: [0, 0.1]}}", ["needs low > 0"]),
    ("train: {lr: {loguniform: [1e-5, 10]}}", ["holds 10.0", "[1e-06, 1.0]"]),
    ("train: {width: {randint: [8, 1026]}}", ["holds 1025"]),
    ("train: {width: {choice: [4, 64]}}", ["holds 4"]),
    ("train: {width: {choice: []}}", ["choice takes a list"]),
    ("train: {width: {choice: [64, 64]}}", ["a duplicate value"]),
    ("train: {width: {choice: [[64], 32]}}", ["must be a single value"]),
    ("decode: {nms_tiou: {quniform: [0.1, 0.5]}}", ["quniform takes [low, high, step]"]),
    ("decode: {nms_tiou: {quniform: [0.1, 0.5, 0.3]}}", ["step 0.3"]),
    ("decode: {nms_tiou: {quniform: [0.1, 0.5, 0]}}", ["step 0.0"]),
    ("train: lr", ["train", "must be a mapping"]),
    ("train: [lr]", ["must be a mapping"]),
    ("train: {lr: 1e-3, lr: 1e-4}", ["train.lr", "given twice"]),
    ("method: toy", ["method", "given twice"]),
    ("train: {<<: {lr: 1e-3}}", ["'<<' is not a key"]),
    ("train: {distance: !!python/name:os.system x}", ["tag"]),
    ("train: {distance: !secret x}", ["tag"]),
    ("train: {? [a] : 1}", ["a key must be a name"]),
    ("selection: tset", ["selection.metric", "'tset' is not allowed", "map"]),
    ("selection: best", ["selection.metric", "one of map, points"]),
    ("selection: {val_fraction: 1.5}", ["selection.val_fraction", "[0.01, 0.9]"]),
    ("resources: {precision: fp16}", ["fp32, bf16"]),
    ("resources: {workers: 0}", ["resources.workers", "[1, 4096]"]),
    ("resources: {gpu: 1}", ["'gpu' is not a key", "gpus_per_worker"]),
    ("final: {top: {choice: [1, 2]}}", ["final.top", "must be a single value"]),
    ("train: {lr: 1e-3", ["not YAML", "line"]),
    ("--- \na: 1", ["not YAML"]),
]


def test_a_typo_of_a_needed_key_is_named():
    with pytest.raises(ConfigError, match=r"toy\.yaml:2: datset: .* did you mean 'dataset'\?"):
        read("method: toy\ndatset: x\nbudget: {}\n")


@pytest.mark.parametrize(("text", "parts"), MISTAKES)
def test_a_mistake_is_named(text, parts):
    with pytest.raises(ConfigError) as caught:
        read(HEAD + text)
    message = str(caught.value)
    assert message.startswith("toy.yaml")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["a search space is a mapping"]),
        ("- a\n- b", ["a search space is a mapping"]),
        ("dataset: watch", ["method: is missing"]),
        ("method: toy", ["dataset: is missing"]),
        ("method: toy\ndataset: watch", ["budget: is missing"]),
        ("method: tyo\ndataset: w\nbudget: {}", ["toy.yaml:1: method", "did you mean 'toy'"]),
        ("method: toy\ndataset: [w]\nbudget: {}", ["dataset", "single value"]),
        ("method: toy\ndataset: w\nbudget: {trials: 3, min_steps: 1}", ["max_steps: is miss"]),
        ("method: toy\ndataset: w\nbudget:", ["budget.trials: is missing"]),
    ],
)
def test_a_missing_part_is_named(text, parts):
    with pytest.raises(ConfigError) as caught:
        read(text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("budget.min_steps=101", "--set budget.min_steps=101: budget.min_steps: 101 is more than"),
        ("budget.eta=1", "--set budget.eta=1: budget.eta: 1 is not allowed"),
        ("budget.trials=0", "[1, 1000000]"),
        ("train.lr=fast", "--set train.lr=fast: train.lr: 'fast' is not a number"),
        ("lr=1e-3", "--set lr=1e-3: lr: 'lr' is not a key; it belongs in train:"),
        ("train.lr", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("train.lr.x=3", "write section.key=value"),
        ("train.=3", "write section.key=value"),
        ("train.lr=", "has no value"),
        ("train.lr={uniform: [1", "not YAML"),
        ("dataset.x=1", "dataset has no keys"),
    ],
)
def test_a_wrong_override_is_named(override, part):
    with pytest.raises(ConfigError) as caught:
        read(HEAD, override)
    assert part in str(caught.value)


def test_an_override_given_twice_is_an_error():
    with pytest.raises(ConfigError, match="train.lr is set twice"):
        read(HEAD, "train.lr=1e-3", "train.lr=1e-4")


def test_a_section_does_not_discard_an_override_given_before_it():
    section = "selection={val_fraction: 0.3}"
    with pytest.raises(ConfigError, match="would discard --set selection.fold_seed"):
        read(HEAD, "selection.fold_seed=2", section)
    given = read(HEAD, section, "selection.fold_seed=2").selection
    assert (given.val_fraction, given.fold_seed) == (0.3, 2)


def test_the_word_of_a_metric_does_not_discard_a_metric_given_before_it():
    with pytest.raises(ConfigError, match="would discard --set selection.metric"):
        read(HEAD, "selection.metric=points", "selection=test")


def test_an_override_of_the_metric_keeps_the_rest_of_the_selection():
    text = HEAD + "selection: {val_fraction: 0.35, decode_settings: 32}"
    for overrides in (["selection.fold_seed=2", "selection=points"],
                      ["selection=points", "selection.fold_seed=2"]):  # fmt: skip
        found = read(text, *overrides).selection
        assert (found.metric, found.val_fraction, found.decode_settings) == ("points", 0.35, 32)
        assert found.fold_seed == 2


def test_an_override_fills_a_section_without_keys():
    assert read(f"{HEAD}decode:\n", "decode.top=7").decode_fixed == {"top": 7}


def test_a_control_character_is_named():
    with pytest.raises(ConfigError, match=r"^toy\.yaml:4: character '\\x1b' is not allowed"):
        read(f"{HEAD}# \x1b[0m")
    with pytest.raises(ConfigError, match=r"^--set train.distance=\x07: character '\\x07' is not"):
        read(HEAD, "train.distance=\x07")


def test_load_finds_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("search_spaces").mkdir()
    Path("search_spaces/toy_watch.yaml").write_text(HEAD)
    assert load_space("toy_watch").name == "toy_watch"
    assert load_space("search_spaces/toy_watch.yaml", dataset="beoid").dataset == "beoid"
    with pytest.raises(ConfigError, match="did you mean 'toy_watch'"):
        load_space("toy_wach")
    with pytest.raises(ConfigError, match="no such file"):
        load_space("missing.yaml")
    Path("latin.yaml").write_bytes(b"method: \xff")
    with pytest.raises(ConfigError, match="latin.yaml: cannot be read as text"):
        load_space("latin.yaml")
