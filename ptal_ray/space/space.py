"""A search space: YAML in, typed domains out. Errors name the place of the mistake."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ptal_ray.data.datasets import data_place, imported
from ptal_ray.data.user_files import decoded
from ptal_ray.errors import ConfigError
from ptal_ray.methods import method as methods
from ptal_ray.methods.method import param
from ptal_ray.process.words import did_you_mean
from ptal_ray.space.adapt import Derived
from ptal_ray.space.catalog import POLICIES, space_folders
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.space.fill import derived_values, with_value
from ptal_ray.space.members import ENSEMBLE, Member, read_members
from ptal_ray.space.points import POINTS, read_points
from ptal_ray.space.reader import (
    Spec,
    children_of,
    coerce,
    compose,
    fail,
    mapping_of,
    override_node,
    read_section,
    reject_key,
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of a study."""

    trials: int = param(MISSING, doc="trials", source="PROPOSED", allowed=(1, 1_000_000))
    max_steps: int = param(
        MISSING, doc="optimiser steps of a full trial", source="PROPOSED", allowed=(1, 100_000_000)
    )
    min_steps: int = param(
        MISSING, doc="steps until the first report", source="PROPOSED", allowed=(1, 100_000_000)
    )
    eta: int = param(3, doc="a rung keeps the best 1/eta", source="ASHA", allowed=(2, 100))

    @property
    def report_steps(self) -> tuple[int, ...]:
        """min_steps * eta**k below max_steps, then max_steps."""
        steps, step = [], self.min_steps
        while step < self.max_steps:
            steps.append(step)
            step *= self.eta
        return (*steps, self.max_steps)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of one trial."""

    workers: int = param(1, doc="processes of a trial", source="PROPOSED", allowed=(1, 4096))
    cpus_per_worker: int = param(1, doc="CPU cores", source="PROPOSED", allowed=(1, 4096))
    gpus_per_worker: float = param(
        0.0, doc="share of a GPU", source="PROPOSED", allowed=(0.0, 64.0)
    )
    placement: str = param(
        "pack", doc="workers of a trial on few nodes, on many, or each on another (strict_spread)",
        source="PROPOSED", allowed=("pack", "spread", "strict_spread"),
    )  # fmt: skip
    precision: str = param(
        "fp32", doc="of the forward pass", source="PROPOSED", allowed=("fp32", "bf16")
    )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How a trial is evaluated on a fold of the official training split."""

    metric: str = param(
        "map", doc="map: mAP; points: held-out points alone, without any annotated segment; test: "
        "mAP on the test split, for --protocol paper-compat alone",
        source="PROPOSED", allowed=("map", "points", "test"),
    )  # fmt: skip
    val_fraction: float = param(
        0.2, doc="share of the training videos held out", source="PROPOSED", allowed=(0.01, 0.9)
    )
    fold_seed: int = param(0, doc="which fold", source="PROPOSED", allowed=(0, 2**31 - 1))
    decode_settings: int = param(
        64, doc="decode settings tried in every report", source="PROPOSED", allowed=(1, 100_000)
    )
    cross_fit: bool = param(
        True, doc="tune decoding on one half, score on the other", source="PROPOSED"
    )


@dataclass(frozen=True, kw_only=True)
class Final:
    """The runs after the search."""

    top: int = param(3, doc="configurations trained again", source="PROPOSED", allowed=(1, 100))
    seeds: int = param(3, doc="seeds of each of them", source="PROPOSED", allowed=(1, 100))


_NAMES = ("method", "dataset", "policy")
_OPTIONAL = (POINTS, ENSEMBLE)
_SECTIONS: dict[str, type[Any]] = {
    "selection": Selection,
    "budget": Budget,
    "resources": Resources,
    "final": Final,
}


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """One checked YAML file: every value has the type and the range that its class declares.

    Args:
        name: file name without .yaml.
        policy: "race" (see policy/README.md) or "simple": all configurations on one fold, the best
            again with several seeds.
        train, decode: searched parameters, some with a default of this file.
        train_fixed, decode_fixed: parameters fixed in the file.
        points: how points of training videos are drawn, as --points; "" for those of the store.
        ensemble: members that `python -m ptal_ray.train --ensemble` trains; often none.
        derived: the values computed from the data, and why; for display, not stored in files.
    """

    name: str
    method: str
    dataset: str
    budget: Budget
    selection: Selection = field(default_factory=Selection)
    resources: Resources = field(default_factory=Resources)
    final: Final = field(default_factory=Final)
    policy: str = "race"
    train: dict[str, Domain] = field(default_factory=dict)
    train_fixed: dict[str, Scalar] = field(default_factory=dict)
    decode: dict[str, Domain] = field(default_factory=dict)
    decode_fixed: dict[str, Scalar] = field(default_factory=dict)
    points: str = ""
    ensemble: tuple[Member, ...] = ()
    derived: tuple[Derived, ...] = field(default=(), compare=False)

    def train_defaults(self) -> dict[str, Scalar]:
        """All train parameters: the method's defaults, then the file's defaults and values."""
        plan = methods.load(self.method).train_params
        return asdict(plan()) | _own_defaults(self.train) | self.train_fixed

    def train_params(self) -> methods.TrainParams:
        """`train_defaults` as the method's parameters."""
        return methods.with_values(methods.load(self.method).train_params, self.train_defaults())

    def remark(self) -> str:
        """The note that every table must have for some runs, see `TrainParams.remark`."""
        kind, defaults = methods.load(self.method).train_params, self.train_defaults()
        ends = [(key, value) for key, domain in self.train.items() for value in domain.extremes()]
        every = [defaults, *(defaults | {key: value} for key, value in ends)]
        said = [methods.with_values(kind, values).remark() for values in every]
        return "; ".join(dict.fromkeys(filter(None, said)))

    def decode_defaults(self) -> dict[str, Scalar]:
        """All decode parameters: the method's defaults, then the file's defaults and values."""
        plan = methods.load(self.method).decode_params
        return asdict(plan()) | _own_defaults(self.decode) | self.decode_fixed

    def decode_params(self) -> methods.DecodeParams:
        """`decode_defaults` as the method's parameters."""
        kind: Any = methods.load(self.method).decode_params
        made: methods.DecodeParams = kind(**self.decode_defaults())
        return made

    def resolve_train(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """All train parameters of a trial with the suggestion `params`."""
        return self.train_defaults() | dict(params)

    def first_params(self) -> dict[str, Scalar] | None:
        """The defaults as a suggestion, or None if one is outside its searched domain."""
        defaults = self.train_defaults()
        inside = all(domain.contains(defaults[key]) for key, domain in self.train.items())
        return {key: defaults[key] for key in self.train} if inside else None

    def freeze(self, train: Mapping[str, Scalar], decode: Mapping[str, Scalar]) -> SearchSpace:
        """This space with every given parameter fixed: a configuration that can be run again."""
        return replace(
            self,
            train={k: d for k, d in self.train.items() if k not in train},
            train_fixed=self.train_fixed | dict(train),
            decode={k: d for k, d in self.decode.items() if k not in decode},
            decode_fixed=self.decode_fixed | dict(decode),
        )

    def as_dict(self) -> dict[str, Any]:
        """The YAML mapping of this space; JSON-able."""
        searched = {"train": self.train, "decode": self.decode}
        fixed = {"train": self.train_fixed, "decode": self.decode_fixed}
        return (
            {"method": self.method, "dataset": self.dataset, "policy": self.policy}
            | {name: asdict(getattr(self, name)) for name in _SECTIONS}
            | {
                name: {k: d.as_dict() for k, d in searched[name].items()} | fixed[name]
                for name in searched
            }
            | ({POINTS: self.points} if self.points else {})
            | ({ENSEMBLE: [asdict(member) for member in self.ensemble]} if self.ensemble else {})
        )

    def to_yaml(self) -> str:
        """Text that `parse_space` reads back as this space, with one line per parameter."""
        lines = []
        for key, value in self.as_dict().items():
            if key in ("train", "decode") and value:
                lines += [f"{key}:", *(f"  {_yaml_line(name, own)}" for name, own in value.items())]
            elif key == ENSEMBLE:
                lines += [f"{key}:", *(f"- {{{_yaml_line('times', m['times'])}, "
                          f"{_yaml_line('train', m['train'])}}}" for m in value)]  # fmt: skip
            else:
                lines.append(_yaml_line(key, value))
        return "\n".join(lines) + "\n"


def _yaml_line(key: str, value: Any) -> str:
    """A key and its value on one line, in the style of handwritten spaces."""
    text = yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=True, width=math.inf)
    return text.strip()[1:-1]


def _own_defaults(domains: Mapping[str, Domain]) -> dict[str, Scalar]:
    """The defaults that searched parameters have in this file."""
    return {key: d.default for key, d in domains.items() if d.default is not None}


def load_space(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    dataset: str | None = None,
    *,
    kept: SearchSpace | None = None,
) -> SearchSpace:
    """Read a search space; without a dataset, missing values are computed from the data.

    Args:
        name_or_path: a path that ends in .yaml, or a name looked up as search_spaces/<name>.yaml
            in the working directory, then beside the package.
        overrides: "train.lr=3e-4", "budget.trials=8", "train.lr={loguniform: [1e-5, 1e-3]}".
        dataset: replaces the file's dataset.
        kept: the space of a study that started with this file; its values replace those of the
            rules.

    Raises:
        ConfigError: with file, line, key, value, allowed values and the closest match.
        DataError: values must be computed from the data, and the dataset is missing.
    """
    path = find_space(str(name_or_path))
    try:
        text = decoded(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    stated = _sections(text, str(path))
    top = _overridden(stated, overrides)
    _check_keys(top, ("method",), str(path))
    if dataset is not None:
        mark = top["method"].start_mark
        top["dataset"] = yaml.ScalarNode("tag:yaml.org,2002:str", dataset, mark)
    if "dataset" in stated:
        return _whole(top, path.stem, str(path))
    if "dataset" not in top:
        _reject_unknown(top)
        raise ConfigError(
            f"{path}: dataset: is missing; this space is for data of your own: give "
            f"--dataset NAME; in {data_place()} are {', '.join(imported())}"
        )
    derived = derived_values(top, *_classes(top), str(path), kept.as_dict() if kept else None)
    for one in derived:
        top = with_value(top, one, f"{path}, from the data")
    return replace(_whole(top, path.stem, str(path)), derived=derived)


def parse_space(text: str, *, name: str, source: str, overrides: Sequence[str] = ()) -> SearchSpace:
    """A whole space from text; errors name `source`."""
    return _whole(_overridden(_sections(text, source), overrides), name, source)


def _sections(text: str, source: str) -> dict[str, yaml.Node]:
    root = compose(text, source)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{source}: a search space is a mapping with method:, dataset:, budget:")
    return _with_selection_mapping(children_of(root, ""))


def _overridden(stated: dict[str, yaml.Node], overrides: Sequence[str]) -> dict[str, yaml.Node]:
    top = dict(stated)
    for index, override in enumerate(overrides):
        override_node(top, override, [o.partition("=")[0].strip() for o in overrides[:index]])
        top = _with_selection_mapping(top)
    return top


def _whole(top: Mapping[str, yaml.Node], name: str, source: str) -> SearchSpace:
    _check_keys(top, ("method", "dataset", "budget"), source)
    return _from_nodes(top, name, source)


def _check_keys(top: Mapping[str, yaml.Node], needed: Collection[str], source: str) -> None:
    for key in needed:
        if key not in top:
            _reject_unknown(top)
            raise ConfigError(f"{source}: {key}: is missing; a search space needs it")


def _reject_unknown(top: Mapping[str, yaml.Node]) -> None:
    known = (*_NAMES, *_SECTIONS, "train", "decode", *_OPTIONAL)
    for other in (key for key in top if key not in known):
        reject_key(top[other], "", other, known, _SECTIONS)


def _with_selection_mapping(top: dict[str, yaml.Node]) -> dict[str, yaml.Node]:
    """`selection: points` written out as `selection: {metric: points}`, and `val`, the word of
    earlier versions, as `map`."""
    node = top.get("selection")
    if isinstance(node, yaml.ScalarNode):
        node = mapping_of({"metric": node}, node)
    if not isinstance(node, yaml.MappingNode):
        return top
    children = children_of(node, "selection")
    metric = children.get("metric")
    if isinstance(metric, yaml.ScalarNode) and metric.value == "val":
        children["metric"] = yaml.ScalarNode(metric.tag, "map", metric.start_mark)
    return top | {"selection": mapping_of(children, node)}


def _classes(top: Mapping[str, yaml.Node]) -> tuple[methods.AnyMethod, dict[str, type[Any]]]:
    """The method of a space, and the dataclass of each of its sections."""
    name = str(coerce(top["method"], Spec(str, MISSING, methods.names()), "method"))
    method = methods.load(name)
    own = {"train": method.train_params, "decode": method.decode_params}
    return method, {**_SECTIONS, **own}


def _from_nodes(top: Mapping[str, yaml.Node], name: str, source: str) -> SearchSpace:
    method, classes = _classes(top)
    dataset = str(coerce(top["dataset"], Spec(str, MISSING, None), "dataset"))
    policy = "race"
    if node := top.get("policy"):
        policy = str(coerce(node, Spec(str, MISSING, POLICIES), "policy"))
    for key, node in top.items():
        if key not in (known := (*_NAMES, *classes, *_OPTIONAL)):
            reject_key(node, "", key, known, classes)
    read = {key: read_section(top.get(key), key, classes, source) for key in classes}
    params: dict[str, Any] = {}
    for key in ("train", "decode"):
        values = read[key].items()
        params[key] = {k: v for k, v in values if isinstance(v, Domain)}
        params[f"{key}_fixed"] = {k: v for k, v in values if not isinstance(v, Domain)}
    sections: dict[str, Any] = {key: cls(**read[key]) for key, cls in _SECTIONS.items()}
    if sections["selection"].metric == "points" and method.supervision != "point":
        others = [o for o in methods.names() if methods.load(o).supervision == "point"]
        fail(top["selection"], "selection.metric",
             f"'points' is for methods that learn from points ({', '.join(others)}); {method.name} "
             "learns from annotated segments, so choose map")  # fmt: skip
    space = SearchSpace(
        name=name, method=method.name, dataset=dataset, policy=policy, **sections, **params,
        points=read_points(top.get(POINTS)), ensemble=read_members(top.get(ENSEMBLE), classes),
    )  # fmt: skip
    if (least := space.budget.min_steps) > (most := space.budget.max_steps):
        fail(top["budget"], "budget.min_steps", f"{least} is more than max_steps = {most}")
    return space


def find_space(name: str) -> Path:
    """The file of a search space: `name` itself if it is a path, else the file with that name.

    Raises:
        ConfigError: there is none.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if not Path(name).is_file():
            raise ConfigError(f"{name}: no such file; give a path or the name of a search space")
        return Path(name)
    folders = space_folders()
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    raise ConfigError(
        f"search space {name!r} is unknown{did_you_mean(name, known)}; "
        f"known are {', '.join(known)}; or give a path that ends in .yaml"
    )
