"""Domains of hyperparameters, with the names of Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Scalar = bool | int | float | str

KINDS = {  # Ray Tune's names -> (description of the arguments, types of parameters that may use it)
    "uniform": ("[low, high]", (float,)),
    "loguniform": ("[low, high]", (float,)),
    "quniform": ("[low, high, step]", (float,)),
    "randint": ("[low, high), high excluded", (int,)),
    "lograndint": ("[low, high), high excluded", (int,)),
    "choice": ("[value, ...]", (bool, int, float, str)),
}
DEFAULT = "default"  # the key of the default of a searched parameter


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The values one hyperparameter may take.

    Args:
        kind: a name of Ray Tune: uniform, loguniform, quniform, randint, lograndint or choice.
        args: (low, high), (low, high, step) for quniform, or the options of a choice. `high` is
            included for floats and excluded for integers.
        default: the default of the parameter in this space; None for that of the method.
    """

    kind: str
    args: tuple[Scalar, ...]
    default: Scalar | None = None

    def sample(self, unit: float) -> Scalar:
        """The value at `unit` in [0, 1), so that uniform units give this domain's distribution."""
        if self.kind == "choice":
            return self.args[min(int(unit * len(self.args)), len(self.args) - 1)]
        low, high = self._bounds()
        if self.kind == "quniform":
            steps = round((high - low) / float(self.args[2]))
            return self._step(min(int(unit * (steps + 1)), steps))
        if self.kind in ("loguniform", "lograndint"):
            value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            value = low + unit * (high - low)
        if self.kind in ("randint", "lograndint"):
            return int(min(max(math.floor(value), low), high - 1))
        return min(max(value, low), high)

    def contains(self, value: Scalar) -> bool:
        """Whether this domain can yield `value`."""
        if self.kind == "choice":
            return any(
                value == a and isinstance(value, bool) == isinstance(a, bool) for a in self.args
            )
        if isinstance(value, bool | str):
            return False
        low, high = self._bounds()
        if self.kind in ("randint", "lograndint"):
            return isinstance(value, int) and low <= value < high
        if self.kind == "quniform":
            steps = (value - low) / float(self.args[2])
            if abs(steps - round(steps)) > 1e-6:
                return False
        return low <= value <= high

    def grid(self, num: int) -> tuple[Scalar, ...]:
        """At most `num` evenly spaced values with both ends; a choice gives all options."""
        if self.kind == "choice":
            return self.args
        low, high = self._bounds()
        if self.kind == "quniform":
            steps = round((high - low) / float(self.args[2]))
            at = sorted({round(k * steps / max(num - 1, 1)) for k in range(num)})
            return tuple(self._step(k) for k in at)
        whole = self.kind in ("randint", "lograndint")
        last = high - 1 if whole else high
        log = self.kind in ("loguniform", "lograndint")
        ends = (math.log(low), math.log(last)) if log else (low, last)
        units = [k / max(num - 1, 1) for k in range(num)]
        values = [ends[0] * (1 - u) + ends[1] * u for u in units]
        exact = [min(max(math.exp(v) if log else v, low), last) for v in values]
        return tuple(sorted({round(v) for v in exact})) if whole else tuple(exact)

    @property
    def size(self) -> int | None:
        """Number of values; None for real numbers."""
        if self.kind == "choice":
            return len(self.args)
        low, high = self._bounds()
        if self.kind == "quniform":
            return math.floor((high - low) / float(self.args[2]) + 1e-9) + 1
        whole = self.kind in ("randint", "lograndint")
        return int(self.args[1]) - int(self.args[0]) if whole else None

    def at(self, index: int) -> Scalar:
        """Value number `index`, from 0, of a finite domain."""
        if self.kind == "choice":
            return self.args[index]
        return self._step(index) if self.kind == "quniform" else int(self.args[0]) + index

    def extremes(self) -> tuple[Scalar, ...]:
        """The smallest and the largest value; all options of a choice."""
        if self.kind in ("randint", "lograndint"):
            return (self.args[0], int(self.args[1]) - 1)
        return self.args if self.kind == "choice" else self.args[:2]

    def as_dict(self) -> dict[str, Any]:
        """As in the YAML: {kind: args}, with "default" if it has one; JSON-able."""
        own = {} if self.default is None else {DEFAULT: self.default}
        return {self.kind: list(self.args)} | own

    @staticmethod
    def from_dict(mapping: Mapping[str, Any]) -> Domain:
        """The inverse of `as_dict`."""
        ((kind, args),) = ((k, v) for k, v in mapping.items() if k != DEFAULT)
        return Domain(kind=kind, args=tuple(args), default=mapping.get(DEFAULT))

    def _bounds(self) -> tuple[float, float]:
        return float(self.args[0]), float(self.args[1])

    def _step(self, index: int) -> float:
        return float(f"{float(self.args[0]) + index * float(self.args[2]):.12g}")
