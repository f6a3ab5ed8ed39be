"""The folder for sockets and logs of a Ray that is started here."""

from __future__ import annotations

import os
from pathlib import Path

from ptal_ray.errors import ConfigError

# The path of a socket has at most 107 bytes; these are the longest names in Ray's folder.
_LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST = 107 - len(_LONGEST_SOCKET)
_OTHERS = ("/tmp", "/var/tmp")


def socket_folder(below: str = "") -> Path:
    """The parent of Ray's folder: $RAY_TMPDIR, else $TMPDIR, or /tmp if that is too long for a
    socket or cannot be written.

    Args:
        below: name of a subfolder for Ray.

    Raises:
        ConfigError: $RAY_TMPDIR, or every candidate, cannot be used.
    """
    longest = LONGEST - len(below)
    advice = f"set RAY_TMPDIR to a writable folder whose path has at most {longest} bytes"
    if chosen := os.environ.get("RAY_TMPDIR"):
        if problem := _problem(chosen, longest):
            raise ConfigError(f"RAY_TMPDIR {chosen}: {problem}; {advice}")
        return Path(chosen)
    problems = {}
    for folder in filter(None, (os.environ.get("TMPDIR"), *_OTHERS)):
        problems[folder] = _problem(folder, longest)
        if not problems[folder]:
            return Path(folder)
    reasons = ", ".join(f"{folder} ({problem})" for folder, problem in problems.items())
    raise ConfigError(f"no folder can be used for Ray's sockets: {reasons}; {advice}")


def _problem(folder: str, longest: int) -> str:
    """The reason why Ray cannot start in a folder; "" if it can."""
    if not os.path.isabs(folder):
        return "the path is not absolute"
    if (length := len(os.fsencode(folder))) > longest:
        return f"the path has {length} bytes, which is too long for a socket"
    wanted = Path(folder, "ray")
    there = next(path for path in (wanted, *wanted.parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{there} is not a writable folder"
    return ""
