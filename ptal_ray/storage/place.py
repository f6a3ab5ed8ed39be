"""The folder for the results of searches, and checks that paths stay inside a folder."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.user_directories import expanded, home

RESULTS = "PTAL_RESULTS"
NAME_BYTES = 134  # studies add their time, reports their machine and date; the limit is 255
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the command of a job
_COPIES = "runtime_resources"  # where Ray unpacks the working directory of a job


def results_root() -> Path:
    """The base folder of relative paths of studies, reports and mlflow.db.

    $PTAL_RESULTS, else the working directory. A Ray job runs in a copy that Ray deletes, so there
    it is ~/ptal_ray of the node that runs the command.
    """
    if given := os.environ.get(RESULTS):
        return expanded(given).absolute()
    copied = _JOB in os.environ and _COPIES in Path.cwd().parts
    return home(RESULTS) / "ptal_ray" if copied else Path.cwd()


def kept(path: Path) -> Path:
    """`path` as an absolute path; a relative one is in `results_root()`."""
    return (results_root() / expanded(path)).resolve()


def make_results_root() -> None:
    """Create the folder if it is missing.

    Raises:
        ConfigError: it cannot be created.
    """
    root = results_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{RESULTS} {root}: cannot be created ({error.strerror}); set {RESULTS} to a "
            "writable folder"
        ) from error


def plain_name(text: str, most: int = NAME_BYTES) -> str:
    """`text` as a folder name that is valid on every system and in every command.

    Letters, digits, _, - and . stay; any other characters become one _. The name does not start
    with . or -, and has at most `most` bytes in UTF-8.
    """
    name = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".-")
    return name.encode()[:most].decode(errors="ignore") or "_"


def inside(folder: Path, relative: str) -> Path:
    """The path for a file name relative to a folder.

    Raises:
        DataError: it is outside the folder: absolute, above it, or behind a link that points
            outside.
    """
    try:
        path = (folder / relative).resolve()
        path.exists()  # raises if a name is too long
    except (OSError, ValueError) as error:  # too long, a cycle of links, or a zero byte
        raise DataError(
            f"{folder}: names {relative[:80]!r}, which is not a valid path ({error})"
        ) from error
    if not path.is_relative_to(folder.resolve()) or Path(relative).is_absolute():
        raise DataError(
            f"{folder}: names {relative[:80]!r}, which is outside it; paths must be inside it"
        )
    return folder / relative


def check_links(folder: Path) -> None:
    """Check that no link in a folder points outside it.

    Raises:
        DataError: a link does.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                inside(folder, str(path.relative_to(folder)))
