"""Where what a search leaves behind lies: inside a Ray job, relative paths mean another folder."""

from __future__ import annotations

import os
from pathlib import Path

from ptal_ray.errors import ConfigError

RESULTS = "PTAL_RESULTS"
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray gives it to the command of a job
_COPIES = "runtime_resources"  # where Ray unpacks the working directory of a job


def results_root() -> Path:
    """The folder that relative studies, reports and mlflow.db are relative to.

    $PTAL_RESULTS, else the working directory. A Ray job works in a copy that Ray throws away, so
    there it is ~/ptal_ray of the node that runs the command.
    """
    if given := os.environ.get(RESULTS):
        return Path(given).expanduser().absolute()
    copied = _JOB in os.environ and _COPIES in Path.cwd().parts
    return Path.home() / "ptal_ray" if copied else Path.cwd()


def kept(path: Path) -> Path:
    """`path`, absolute: where it is relative, it lies in `results_root()`."""
    return (results_root() / path.expanduser()).resolve()


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
            f"{RESULTS} {root}: cannot be made ({error.strerror}); set {RESULTS} to a folder to "
            "write in"
        ) from error
