"""Where a Ray that starts here keeps its sockets and logs."""

from __future__ import annotations

import os
from pathlib import Path

from ptal_ray.errors import ConfigError

# A socket has a path of at most 107 bytes, and Ray's are called so in the folder it is given.
_LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST = 107 - len(_LONGEST_SOCKET)
_OTHERS = ("/tmp", "/var/tmp")


def socket_folder(below: str = "") -> Path:
    """Where a Ray that starts here may make its folder: $RAY_TMPDIR, else $TMPDIR or, where that is
    too long for a socket or cannot be written, /tmp.

    Args:
        below: name of a folder in it that Ray is given instead.

    Raises:
        ConfigError: $RAY_TMPDIR, or every folder that can be tried, is of no use.
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
    """Why Ray cannot start in a folder; "" where it can."""
    if not os.path.isabs(folder):
        return "the path is not absolute"
    if (length := len(os.fsencode(folder))) > longest:
        return f"the path has {length} bytes, which is too long for a socket"
    wanted = Path(folder, "ray")
    there = next(path for path in (wanted, *wanted.parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{there} is not a writable folder"
    return ""
