"""Names of datasets: plain words, because each becomes a folder."""

from __future__ import annotations

import os
import re

from ptal_ray.errors import ConfigError

MOST_BYTES = 100


def check_name(name: str) -> str:
    """`name`, where it can name a dataset.

    Raises:
        ConfigError: it cannot.
    """
    fits = re.fullmatch(r"\w[\w.\-]*", name) and len(os.fsencode(name)) <= MOST_BYTES
    if not fits:
        shown = f"{name[:40]!r}..." if len(name) > 40 else repr(name)
        raise ConfigError(
            f"dataset {shown}: not a dataset name; letters, digits, _, - and . are allowed, up "
            f"to {MOST_BYTES} bytes, with a letter, a digit or _ first"
        )
    return name
