"""Parallel coordinates: a line a trial over an upright axis a parameter, which shows its values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptal_ray.reporting.html.page import BLUE, GREEN, GREY, YELLOW, Figure, is_number, shown

QUARTILES = (GREY, YELLOW, GREEN, BLUE)  # worst to best
QUARTERS = ("worst quarter", "third quarter", "second quarter", "best quarter")
AXIS_PX = 92  # between two axes: a number of six characters, or a cut name, beside each
MOST_TICKS = 7
LONGEST = 12  # characters of a name beside an axis
NEAREST = 0.07  # of the height: two values closer than that would overlap


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One upright axis.

    Args:
        name: under it.
        places: of each trial from 0 to 1; NaN where it has no value.
        ticks: place of each shown value, ascending, and its text.
    """

    name: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def axis(name: str, values: Sequence[Any], domain: Mapping[str, Any]) -> Axis:
    """The axis of a parameter: by logarithm where its domain is, at equal distances for choices.

    Args:
        name: under the axis.
        values: of each trial; None where it has none.
        domain: its kind and bounds, as a search space has them.
    """
    kind = next(iter(domain))
    known = [v for v in values if v is not None]
    if not known or kind == "choice" or not all(is_number(v) for v in known):
        return _categories(name, values, known)
    numbers = np.array([math.nan if v is None else float(v) for v in values])
    return _scale(name, numbers, kind.startswith("log") and np.nanmin(numbers) > 0)


def parallel(axes: Sequence[Axis], objective: Sequence[float]) -> Figure:
    """The figure; the colour of a line is the quarter that the objective of its trial is in."""
    ranks = np.argsort(np.argsort(objective))
    quarter = np.minimum(3, 4 * ranks // len(objective))
    data = []
    for k, colour in enumerate(QUARTILES):
        mine = np.flatnonzero(quarter == k).tolist()
        x = [p for _ in mine for p in [*range(len(axes)), None]]
        y = [v for row in mine for v in [*(a.places[row] for a in axes), None]]
        data.append({"x": x, "y": y, "mode": "lines", "hoverinfo": "skip", "name": QUARTERS[k],
                     "line": {"color": colour, "width": 1}, "opacity": 0.6})  # fmt: skip
    below = {
        "tickvals": list(range(len(axes))), "ticktext": [a.name for a in axes], "tickangle": -35,
        "automargin": True, "range": [-0.1, len(axes) - 0.45], "showgrid": False,
        "zeroline": False, "fixedrange": True,
    }  # fmt: skip
    layout = {
        "xaxis": below,
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        "margin": {"l": 16, "r": 16, "t": 28, "b": 48},
        "shapes": [_upright(k) for k in range(len(axes))],
        "annotations": [_beside(k, *tick) for k, a in enumerate(axes) for tick in a.ticks],
    }
    return Figure(data=data, layout=layout, height=440, min_width=AXIS_PX * len(axes) + 40)


def _categories(name: str, values: Sequence[Any], known: Sequence[Any]) -> Axis:
    order = sorted({shown(v): v for v in known}.items(), key=_by_value)
    place = {text: k / max(1, len(order) - 1) for k, (text, _) in enumerate(order)}
    if len(place) == 1:
        place = dict.fromkeys(place, 0.5)
    places = [math.nan if v is None else place[shown(v)] for v in values]
    kept = _apart([(at, _cut(text)) for text, at in place.items()])
    return Axis(name=name, places=places, ticks=kept)


def _by_value(item: tuple[str, Any]) -> tuple[bool, float, str]:
    """Numbers by size, before texts."""
    text, value = item
    return (not is_number(value), float(value) if is_number(value) else 0.0, text)


def _scale(name: str, numbers: np.ndarray, log: bool) -> Axis:
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return Axis(name=name, places=[math.nan] * len(numbers), ticks=[])
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        places = np.where(np.isfinite(numbers), 0.5, math.nan)
        return Axis(name=name, places=places.tolist(), ticks=[(0.5, shown(low))])
    scaled = np.log10 if log else np.asarray
    bottom, height = scaled(low), scaled(high) - scaled(low)

    def place(value: Any) -> Any:
        """The place of values on the axis, 0 to 1."""
        return (scaled(value) - bottom) / height

    wanted = _decades(low, high) if log else _steps(finite, low, high)
    inner = [(float(place(v)), _short(v)) for v in wanted]
    inner = [tick for tick in inner if tick[0] <= 1 - NEAREST]
    ticks = [*_apart([(0.0, _short(low)), *inner]), (1.0, _short(high))]
    return Axis(name=name, places=place(numbers).tolist(), ticks=ticks)


def _decades(low: float, high: float) -> list[float]:
    """Values between the ends of a logarithmic axis: powers of ten, or thirds of its length."""
    powers = range(math.floor(math.log10(low)) + 1, math.ceil(math.log10(high)))
    if len(powers) >= 2:
        every = math.ceil(len(powers) / (MOST_TICKS - 2))
        return [10.0**p for p in powers[::every]]
    return [low * (high / low) ** (k / 3) for k in (1, 2)]


def _steps(finite: np.ndarray, low: float, high: float) -> list[float]:
    """Values between the ends of a linear axis: all that occur where they are few, or quarters."""
    values = np.unique(finite)
    if len(values) <= MOST_TICKS:
        return [float(v) for v in values[1:-1]]
    return [low + (high - low) * k / 4 for k in (1, 2, 3)]


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that do not overlap the one before."""
    kept = list[tuple[float, str]]()
    for tick in ticks:
        if not kept or tick[0] - kept[-1][0] >= NEAREST:
            kept.append(tick)
    return kept


def _short(value: float) -> str:
    return f"{value:.3g}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _upright(k: int) -> dict[str, Any]:
    line = {"color": "#444", "width": 1}
    return {"type": "line", "x0": k, "x1": k, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _beside(k: int, place: float, text: str) -> dict[str, Any]:
    return {
        "x": k, "y": place, "text": text.replace("<", "&lt;"), "showarrow": False,
        "xanchor": "left", "xshift": 2, "font": {"size": 11}, "bgcolor": "rgba(255,255,255,0.8)",
        "borderpad": 1,
    }  # fmt: skip
