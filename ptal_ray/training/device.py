"""The device that a flag names."""

from __future__ import annotations

import torch

from ptal_ray.errors import ConfigError


def run_device(name: str | None) -> str:
    """The device in --device, else a GPU if there is one.

    Raises:
        ConfigError: it cannot be used.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: not usable here ({reason}); try cpu") from error
    return name
