"""Layouts by name: the module of this folder that reads each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what they need is slow to import, and --help names the layouts
    from ptal_ray.data.readers.release import Given, Release

LAYOUTS = {
    "plain": "plain",
    "signals": "signals",
    "actionformer": "actionformer",
    "opentad": "opentad",
    "lacp": "two_stream",
    "potloc": "two_stream",
    "hrpro": "hrpro",
    "bmn": "bmn",
    "mstcn": "mstcn",
    "epic": "epic",
    "sfnet": "sfnet",
}


def read(layout: str, given: Given) -> Release:
    """Reads the released folder of `given`.

    Raises:
        ConfigError: a flag that the layout needs is missing.
        DataError: the folder is of another layout.
    """
    release: Release = import_module(f"ptal_ray.data.readers.{LAYOUTS[layout]}").read(given)
    return release
