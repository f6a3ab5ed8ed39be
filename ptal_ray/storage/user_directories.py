"""The home and cache directories of a user, which may be missing or read-only in a container."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptal_ray.errors import ConfigError

_TEMPORARY = "ptal_ray_home_"  # prefix of a directory that is removed with the process


def home(instead: str) -> Path:
    """The home directory of this user.

    Args:
        instead: the environment variable that makes it unnecessary, for the message.

    Raises:
        ConfigError: there is none.
    """
    found = Path(os.path.expanduser("~"))
    if not found.is_absolute() or found.name.startswith(_TEMPORARY):
        raise ConfigError(
            f"user {os.getuid()} has no home directory; set {instead}, or HOME, to a folder to "
            "write in"
        )
    return found


def expanded(path: str | Path) -> Path:
    """`path` with the directory of a user in the place of a leading ~ or ~user.

    Raises:
        ConfigError: that user has none here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ConfigError(
            f"{path}: {user} is no home directory here; write a whole path"
        ) from error


def ensure_home() -> None:
    """Sets HOME for this process and its children where a user has no directory and cannot make it:
    MLflow, Ray and others need one to start. It is removed when the process ends."""
    found = Path(os.path.expanduser("~"))
    if found.is_dir() or _can_be_written(found):
        return
    os.environ["HOME"] = tempfile.mkdtemp(prefix=_TEMPORARY)
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def home_is_writable() -> bool:
    """Whether files can be made in the home directory."""
    return _can_be_written(Path(os.path.expanduser("~")))


@contextmanager
def writable_cache() -> Iterator[None]:
    """For the time of a `with` block the home directory has a cache: where it cannot be written, an
    empty folder that goes with the block."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given or _can_be_written(Path(os.path.expanduser("~/.cache"))):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        replaced = {"XDG_CACHE_HOME": folder}
        if "MPLCONFIGDIR" not in os.environ:
            replaced["MPLCONFIGDIR"] = folder
        os.environ.update(replaced)
        try:
            yield
        finally:
            for name in replaced:
                del os.environ[name]


def _can_be_written(path: Path) -> bool:
    """Whether `path` is there to write in or can be made; never for one that is relative."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return path.is_absolute() and os.access(there, os.W_OK)
