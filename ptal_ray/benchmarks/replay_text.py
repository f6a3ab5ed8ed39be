"""A replay as text: a table per recorded search, a row per policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptal_ray.process.words import counted

_COLUMNS = {  # name of a measure -> head of its column, factor
    "p_worse": ("P(worse) %", 100.0),
    "gain": ("gain", 100.0),
    "worst_decile": ("worst tenth", 100.0),
    "optimism": ("optimism", 100.0),
    "spread": ("spread", 100.0),
    "cost_ratio": ("cost ratio", 1.0),
}
_WIDTH = 23


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines for a result of `replay`."""
    searches = counted(found["searches"], "search", "searches")
    yield (
        f"{searches} of {found['budget']:g} full runs each; in mAP points on the test split; "
        "[95 % interval]"
    )
    for table, policies in found["tables"].items():
        yield ""
        yield f"{table:<18}" + "".join(f"{head:>{_WIDTH}}" for head, _ in _COLUMNS.values())
        for policy, values in policies.items():
            yield f"{policy:<18}" + "".join(_cell(values, name) for name in _COLUMNS)
    yield ""
    yield "Searches that recommend anything but the defaults where all configurations are the"
    yield "defaults (A/A), %:"
    for table, policies in found["aa"].items():
        for policy, values in policies.items():
            yield f"{table:<24}{policy:<18}{_cell(values, 'opened', 100.0)}"


def _cell(values: Mapping[str, Any], name: str, factor: float = 0.0) -> str:
    factor = factor or _COLUMNS[name][1]
    number, low, high = (
        "-" if v is None else f"{factor * v:.{1 if factor > 1 else 2}f}"
        for v in (values[name], *values["intervals"][name])
    )
    return f"{number} [{low}, {high}]".rjust(_WIDTH)
