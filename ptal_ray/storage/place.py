"""Where what a search leaves behind lies, and that nothing read from it leads elsewhere."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.user_directories import expanded, home

RESULTS = "PTAL_RESULTS"
NAME_BYTES = 134  # a study adds its time, a report its machine and date, to at most 255
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray gives it to the command of a job
_COPIES = "runtime_resources"  # where Ray unpacks the working directory of a job


def results_root() -> Path:
    """The folder that relative studies, reports and mlflow.db are relative to.

    $PTAL_RESULTS, else the working directory. A Ray job works in a copy that Ray throws away, so
    there it is ~/ptal_ray of the node that runs the command.
    """
    if given := os.environ.get(RESULTS):
        return expanded(given).absolute()
    copied = _JOB in os.environ and _COPIES in Path.cwd().parts
    return home(RESULTS) / "ptal_ray" if copied else Path.cwd()


def kept(path: Path) -> Path:
    """`path`, absolute: where it is relative, it lies in `results_root()`."""
    return (results_root() / expanded(path)).resolve()


def make_results_root() -> None:
    """Makes the folder where it is missing.

    Raises:
        ConfigError: it cannot be made.
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
    """`text` as the name of a folder that every system and every command takes.

    Letters, digits, _, - and . stay; any other characters become one _. The name begins with
    neither . nor -, and has `most` bytes in UTF-8 at most.
    """
    name = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".-")
    return name.encode()[:most].decode(errors="ignore") or "_"


def inside(folder: Path, relative: str) -> Path:
    """The path that a file names relative to its folder.

    Raises:
        DataError: it lies elsewhere: it is absolute, goes up, or follows a link that leads out.
    """
    try:
        path = (folder / relative).resolve()
        path.exists()  # says whether a name is too long
    except (OSError, ValueError) as error:  # too long, a circle of links, or a zero byte
        raise DataError(
            f"{folder}: names {relative[:80]!r}, which is not a valid path ({error})"
        ) from error
    if not path.is_relative_to(folder.resolve()) or Path(relative).is_absolute():
        raise DataError(
            f"{folder}: names {relative[:80]!r}, which is outside it; paths must be inside it"
        )
    return folder / relative


def check_links(folder: Path) -> None:
    """Finds links by which writing into a folder would write elsewhere.

    Raises:
        DataError: there is one.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                inside(folder, str(path.relative_to(folder)))
