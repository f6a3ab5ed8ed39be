"""Fills a search space without a dataset with values computed from the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any

import yaml

from ptal_ray.data.datasets import find
from ptal_ray.methods.method import AnyMethod
from ptal_ray.space.adapt import Derived, derive, known_of, rules_of
from ptal_ray.space.domain import DEFAULT, Domain, Scalar
from ptal_ray.space.reader import (
    Spec,
    children_of,
    coerce,
    compose,
    mapping_of,
    read_section,
    specs_of,
)


def derived_values(
    top: Mapping[str, yaml.Node],
    method: AnyMethod,
    classes: Mapping[str, type[Any]],
    source: str,
    kept: Mapping[str, Any] | None,
) -> tuple[Derived, ...]:
    """The values computed from the data that a space does not state, or those stored with a study.

    Args:
        top: the nodes of the space by section, including its dataset.
        method, classes: its method, and the dataclass of each section.
        source: the file, for errors.
        kept: the mapping of a study's space, whose values replace those of the rules.

    Raises:
        ConfigError: a stated key or value is wrong.
        DataError: the dataset is missing.
    """
    stated = _flat({key: read_section(top.get(key), key, classes, source, partial=True)
                    for key in classes})  # fmt: skip
    wanted = [rule.key for rule in rules_of(method) if _open(rule.key, stated)]
    if kept is not None:
        return _kept(_flat({key: kept[key] for key in classes}), wanted)
    specs = {key: specs_of(cls) for key, cls in classes.items()}
    defaults = _flat({key: {n: s.default for n, s in own.items()} for key, own in specs.items()})
    values = defaults | {key: _one(value, defaults[key]) for key, value in stated.items()}
    store = find(str(coerce(top["dataset"], Spec(str, MISSING, None), "dataset")))
    found = derive(method, known_of(method, store, values), values, wanted)
    return tuple(one for one in found if _holds(stated.get(_parameter(one.key)), one.value))


def with_value(top: Mapping[str, yaml.Node], one: Derived, source: str) -> dict[str, yaml.Node]:
    """`top` with one more value; its section keeps its position. Errors name `source`."""
    section, name = _parameter(one.key).split(".")
    node = compose(json.dumps(one.value), source)
    assert node is not None
    old = top.get(section, node)
    inner = children_of(old, section) if isinstance(old, yaml.MappingNode) else {}
    domain = inner.get(name)
    if isinstance(domain, yaml.MappingNode):  # of a searched parameter: its default
        node = mapping_of({**children_of(domain, name), DEFAULT: node}, domain)
    return {**top, section: mapping_of({**inner, name: node}, old)}


def _parameter(key: str) -> str:
    """The parameter of "section.key" or "section.key.default"."""
    return key.removesuffix(f".{DEFAULT}")


def _open(key: str, stated: Mapping[str, Domain | Scalar]) -> bool:
    """Whether a rule may set `key`: it is not stated, or is the missing default of a searched
    parameter."""
    if (name := _parameter(key)) == key:
        return key not in stated
    domain = stated.get(name)
    return isinstance(domain, Domain) and domain.default is None


def _holds(domain: Domain | Scalar | None, value: Scalar) -> bool:
    return not isinstance(domain, Domain) or domain.contains(value)


def _kept(then: Mapping[str, Any], wanted: Sequence[str]) -> tuple[Derived, ...]:
    """The values of a study for the keys `wanted`, if it has them."""
    of_domains = {f"{key}.{DEFAULT}": value[DEFAULT] for key, value in then.items()
                  if isinstance(value, Mapping) and DEFAULT in value}  # fmt: skip
    known = {**then, **of_domains}
    why = "as when the study began"
    return tuple(Derived(key=key, value=known[key], why=why) for key in wanted if key in known)


def _one(value: Domain | Scalar, default: Scalar) -> Scalar:
    """A value of a parameter: the stated one, or one in its domain, preferably the default."""
    if not isinstance(value, Domain):
        return value
    if value.default is not None:
        return value.default
    return default if value.contains(default) else value.sample(0.5)


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mappings by section as one mapping by "section.key"."""
    return {
        f"{section}.{key}": value
        for section, values in sections.items()
        for key, value in values.items()
    }
