"""YAML nodes to typed values; every error names place, key, value and the allowed values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, NamedTuple, NoReturn, get_type_hints

import yaml
from yaml.reader import ReaderError

from ptal_ray.errors import ConfigError
from ptal_ray.process.words import did_you_mean
from ptal_ray.space.domain import DEFAULT, KINDS, Domain, Scalar

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Spec(NamedTuple):
    """The declaration of one field of a class."""

    type: type[Any]
    default: Any
    allowed: tuple[Any, ...] | None

    def __str__(self) -> str:
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return f"one of {', '.join(self.allowed)}" if self.allowed else "text"
        noun = "an integer" if self.type is int else "a number"
        return f"{noun} in [{self.allowed[0]}, {self.allowed[1]}]" if self.allowed else noun

    def admits(self, value: Scalar) -> bool:
        """Whether `value`, of the right type, is in the allowed range or one of the choices."""
        if self.allowed is None:
            return True
        if self.type in (int, float):
            return bool(self.allowed[0] <= value <= self.allowed[1])
        return value in self.allowed


def specs_of(cls: type[Any]) -> dict[str, Spec]:
    """The fields of a dataclass made with `methods.method.param`, by name."""
    hints = get_type_hints(cls)
    return {f.name: Spec(hints[f.name], f.default, f.metadata.get("allowed")) for f in fields(cls)}


def compose(text: str, source: str) -> yaml.Node | None:
    """The root node of a YAML text, None if it is empty.

    Args:
        text: one YAML document.
        source: the place that errors name: a path, or "--set k=v".

    Raises:
        ConfigError: not YAML, or more than one document.
    """
    try:
        loader = yaml.SafeLoader(text)  # checks the characters of the whole text
        loader.name = source  # the source in every mark, also of nodes from --set
        node: yaml.Node | None = loader.get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        place = source if source.startswith("--set ") else f"{source}:{line}"
        raise ConfigError(
            f"{place}: character {text[error.position]!r} is not allowed in YAML; remove it"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    return node


def children_of(node: yaml.MappingNode, section: str) -> dict[str, yaml.Node]:
    """The nodes of a mapping by key; `section` is its own key, for errors.

    Raises:
        ConfigError: a key is not a name or is given twice (PyYAML would keep the last).
    """
    children: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            fail(key, section, "a key must be a name")
        if key.value in children:
            fail(key, _join(section, key.value), "is given twice")
        children[key.value] = value
    return children


def mapping_of(children: Mapping[str, yaml.Node], near: yaml.Node) -> yaml.MappingNode:
    """A mapping node of `children` with the position of `near`."""
    pairs = [
        (yaml.ScalarNode("tag:yaml.org,2002:str", key, node.start_mark), node)
        for key, node in children.items()
    ]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, near.start_mark)


def override_node(top: dict[str, yaml.Node], override: str, earlier: Sequence[str]) -> None:
    """Replace or add one node of the mapping `top`.

    Args:
        top: nodes by section.
        override: "section.key=value"; the value is YAML.
        earlier: keys that were set before.

    Raises:
        ConfigError: the override has another form, is given twice, or replaces a whole section of
            which a key was set before.
    """
    place = f"--set {override}"
    key, equals, value = override.partition("=")
    section, _, name = (key := key.strip()).partition(".")
    if not equals or not section or "." in name or key.endswith("."):
        raise ConfigError(f"{place}: write section.key=value, e.g. --set train.lr=3e-4")
    if key in earlier:
        raise ConfigError(f"{place}: {key} is set twice")
    node = compose(value, place)
    if node is None:
        raise ConfigError(f"{place}: {key} has no value")
    if key == "selection" and isinstance(node, yaml.ScalarNode) and not _is_null(node):
        key, name = "selection.metric", "metric"  # selection=points
    lost = next((own for own in earlier if own == key or own.startswith(f"{key}.")), None)
    if lost:
        raise ConfigError(
            f"{place}: would discard --set {lost}; give --set {lost} after it, or only one of them"
        )
    if not name:
        top[section] = node
        return
    old = top.get(section)
    if old is None or _is_null(old):
        old = mapping_of({}, node)
    if not isinstance(old, yaml.MappingNode):
        fail(node, key, f"{section} has no keys")
    top[section] = mapping_of({**children_of(old, section), name: node}, node)


def read_section(
    node: yaml.Node | None,
    section: str,
    classes: Mapping[str, type[Any]],
    source: str,
    *,
    partial: bool = False,
) -> dict[str, Any]:
    """One section as {field: value}; `train` and `decode` may contain domains.

    Args:
        node: the section; None if the file has none.
        section: its key.
        classes: the dataclass of every section.
        source: the place in errors without a node.
        partial: whether required keys may be missing.

    Raises:
        ConfigError: an unknown, missing or wrong key or value.
    """
    specs = specs_of(classes[section])
    if node is None or _is_null(node):
        given: dict[str, yaml.Node] = {}
    elif isinstance(node, yaml.MappingNode):
        given = children_of(node, section)
    else:
        fail(node, section, f"must be a mapping of {', '.join(specs)}")
    values: dict[str, Any] = {}
    for key, child in given.items():
        if key not in specs:
            reject_key(child, section, key, tuple(specs), classes)
        if section in ("train", "decode") and not isinstance(child, yaml.ScalarNode):
            values[key] = _domain(child, specs[key], _join(section, key))
        else:
            values[key] = coerce(child, specs[key], _join(section, key))
    missing = [k for k, s in specs.items() if s.default is MISSING and k not in values]
    if missing and not partial:
        place = _place(node) if node else source
        raise ConfigError(f"{place}: {section}.{missing[0]}: is missing; {section} needs it")
    return values


def _domain(node: yaml.Node, spec: Spec, key: str) -> Domain:
    if not isinstance(node, yaml.MappingNode):
        fail(node, key, "a list is not a domain; write e.g. {choice: [...]} or a single value")
    children = children_of(node, key)
    default = children.pop(DEFAULT, None)
    if len(children) != 1:
        given = ", ".join(children) or "none"
        fail(
            node,
            key,
            "write one domain, e.g. {uniform: [0, 1]}, and at most a default: beside it; "
            f"got {len(children)} domains: {given}",
        )
    ((kind, arguments),) = children.items()
    usable = [k for k, (_, types) in KINDS.items() if spec.type in types]
    if kind not in usable:
        hint = did_you_mean(kind, list(KINDS)) if kind not in KINDS else ""
        fail(
            node,
            key,
            f"domain {kind!r} is not for this parameter, {spec}{hint}; "
            f"allowed are {', '.join(usable)}",
        )
    if not isinstance(arguments, yaml.SequenceNode) or not arguments.value:
        fail(arguments, key, f"{kind} takes a list {KINDS[kind][0]}")
    plain = Spec(spec.type, MISSING, spec.allowed if spec.type is str else None)
    args = tuple(coerce(child, plain, key) for child in arguments.value)
    domain = Domain(kind=kind, args=args)
    _check(domain, arguments, spec, key)
    return (
        domain if default is None else replace(domain, default=_default(default, domain, spec, key))
    )


def _default(node: yaml.Node, domain: Domain, spec: Spec, key: str) -> Scalar:
    """The value of `default:` beside a domain."""
    value = coerce(node, spec, key := f"{key}.{DEFAULT}")
    if not domain.contains(value):
        fail(
            node,
            key,
            f"{value} is outside {domain.kind} {list(domain.args)}; choose a default that the "
            "search can suggest, or widen the domain",
        )
    return value


def _check(domain: Domain, node: yaml.Node, spec: Spec, key: str) -> None:
    kind, args = domain.kind, domain.args
    if kind == "choice":
        if len(set(args)) < len(args):
            fail(node, key, f"choice {list(args)} has a duplicate value")
    else:
        if len(args) != (3 if kind == "quniform" else 2):
            fail(node, key, f"{kind} takes {KINDS[kind][0]}; got {len(args)} values")
        numbers = [float(a) for a in args]
        if numbers[0] >= numbers[1]:
            fail(node, key, f"{kind} needs low < high; got low {args[0]}, high {args[1]}")
        if kind.startswith("log") and numbers[0] <= 0:
            fail(node, key, f"{kind} needs low > 0; got {args[0]}")
        if kind == "quniform":
            steps = (numbers[1] - numbers[0]) / numbers[2] if numbers[2] > 0 else 0.5
            if abs(steps - round(steps)) > 1e-6:
                fail(node, key, f"the step {args[2]} must be > 0 and divide high - low")
    for value in domain.extremes():
        if not spec.admits(value):
            fail(node, key, f"{kind} {list(args)} holds {value}; allowed is {spec}")


def coerce(node: yaml.Node, spec: Spec, key: str) -> Scalar:
    """The scalar with its declared type: PyYAML itself reads `1e-4` as text and `off` as False.

    Raises:
        ConfigError: it has another type, or is not allowed.
    """
    if not isinstance(node, yaml.ScalarNode):
        fail(node, key, f"must be a single value, {spec}")
    if _is_null(node):
        fail(node, key, f"has no value; allowed is {spec}")
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        fail(node, key, f"the tag {node.tag} is not allowed")
    value = _as_type(str(node.value), spec.type)
    if value is None:
        fail(node, key, f"{node.value!r} is not {spec}")
    if not spec.admits(value):
        hint = did_you_mean(str(value), list(spec.allowed or ())) if spec.type is str else ""
        fail(node, key, f"{value!r} is not allowed{hint}; allowed is {spec}")
    return value


def _as_type(text: str, kind: type[Any]) -> Scalar | None:
    if kind is str:
        return text or None
    if kind is bool:
        return _BOOLS.get(text.lower())
    try:
        number = float(text)
        if kind is int and number.is_integer():
            return int(text) if text.lstrip("+-").isdigit() else int(number)
    except ValueError:
        return None
    return number if kind is float and math.isfinite(number) else None


def reject_key(
    node: yaml.Node, section: str, key: str, known: Sequence[str], classes: Mapping[str, type[Any]]
) -> NoReturn:
    """Raise the ConfigError of an unknown key; it names the section it belongs in, or the closest
    key."""
    homes = [name for name, cls in classes.items() if name != section and key in specs_of(cls)]
    where = f" in {section}:" if section else ""
    if homes:
        fail(node, _join(section, key), f"{key!r} is not a key{where}; it belongs in {homes[0]}:")
    fail(
        node,
        _join(section, key),
        f"{key!r} is not a key{where}{did_you_mean(key, known)}; allowed are {', '.join(known)}",
    )


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _join(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _place(node: yaml.Node) -> str:
    mark = node.start_mark
    return mark.name if mark.name.startswith("--set ") else f"{mark.name}:{mark.line + 1}"


def fail(node: yaml.Node, key: str, problem: str) -> NoReturn:
    """Raise a ConfigError at the position of `node`."""
    raise ConfigError(f"{_place(node)}: {key}: {problem}" if key else f"{_place(node)}: {problem}")
