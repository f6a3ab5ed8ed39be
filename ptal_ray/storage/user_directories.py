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

_TEMPORARY = "ptal_ray_home_"  # prefix of a directory that is removed when the process ends


def home(instead: str) -> Path:
    """The home directory of this user.

    Args:
        instead: for the message, the environment variable that makes it unnecessary.

    Raises:
        ConfigError: there is none.
    """
    found = Path(os.path.expanduser("~"))
    if not found.is_absolute() or found.name.startswith(_TEMPORARY):
        raise ConfigError(
            f"user {os.getuid()} has no home directory; set {instead} or HOME to a writable folder"
        )
    return found


def expanded(path: str | Path) -> Path:
    """`path` with a leading ~ or ~user replaced by the user's home directory.

    Raises:
        ConfigError: this user has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ConfigError(
            f"{path}: {user} has no home directory on this machine; write an absolute path"
        ) from error


def ensure_home() -> None:
    """Set HOME to a temporary directory if the user has no home directory and cannot create it:
    MLflow, Ray and others need one. It is removed when the process ends."""
    found = Path(os.path.expanduser("~"))
    if found.is_dir() or _can_be_written(found):
        return
    os.environ["HOME"] = tempfile.mkdtemp(prefix=_TEMPORARY)
    atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def home_is_writable() -> bool:
    """Whether files can be created in the home directory."""
    return _can_be_written(Path(os.path.expanduser("~")))


@contextmanager
def writable_cache() -> Iterator[None]:
    """Provide a writable cache directory in a `with` block: a temporary one if the home directory
    cannot be written."""
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
    """Whether `path` is writable or can be created; False for a relative path."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return path.is_absolute() and os.access(there, os.W_OK)
