"""How a space says that the points of the training videos are drawn."""

from __future__ import annotations

from dataclasses import MISSING

import yaml

from ptal_ray.data.drawn_points import drawn_points
from ptal_ray.errors import ConfigError
from ptal_ray.space.reader import Spec, coerce, fail

POINTS = "points"  # key of a space


def read_points(node: yaml.Node | None) -> str:
    """The value of `points` in a space, with its seed.

    Args:
        node: the value, such as "human" or "uniform:jitter=0.5"; None where the file has none.

    Returns:
        The same for --points; "" for the points of the store.

    Raises:
        ConfigError: there are no such points.
    """
    if node is None:
        return ""
    text = str(coerce(node, Spec(str, MISSING, None), POINTS))
    try:
        return drawn_points(text).text
    except ConfigError as error:
        fail(node, POINTS, str(error).removeprefix(f"--points {text}: "))
