"""The members of an ensemble: configurations whose scores are averaged before decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.space.reader import Spec, children_of, coerce, fail, read_section, reject_key

ENSEMBLE = "ensemble"  # section of a space
MOST_TIMES = 100
_KEYS = ("times", "train")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble.

    Args:
        times: the weight of its scores.
        train: its train parameters that differ from those of the space.
    """

    times: int
    train: dict[str, Scalar] = field(default_factory=dict)


def read_members(node: yaml.Node | None, classes: Mapping[str, type[Any]]) -> tuple[Member, ...]:
    """The section `ensemble` of a space.

    Args:
        node: the section; None if the file has none.
        classes: the dataclass of every section.

    Raises:
        ConfigError: it is not a list of members, or a key or value of one is wrong.
    """
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode) or len(node.value) < 2:
        fail(node, ENSEMBLE, "must be a list of two members or more, {times: 1, train: {...}}")
    return tuple(
        _member(child, f"{ENSEMBLE}[{index}]", classes) for index, child in enumerate(node.value)
    )


def _member(node: yaml.Node, key: str, classes: Mapping[str, type[Any]]) -> Member:
    if not isinstance(node, yaml.MappingNode):
        fail(node, key, "must be a mapping {times: 1, train: {...}}")
    given = children_of(node, key)
    for name, child in given.items():
        if name not in _KEYS:
            reject_key(child, key, name, _KEYS, {})
    if "times" not in given:
        fail(node, f"{key}.times", "is missing; it says how often the scores of a member count")
    times = coerce(given["times"], Spec(int, None, (1, MOST_TIMES)), f"{key}.times")
    train = read_section(given.get("train"), "train", classes, key)
    for name, value in train.items():
        if isinstance(value, Domain):
            fail(given["train"], f"{key}.train.{name}", "a member has single values, no domain")
    return Member(times=int(times), train=train)
