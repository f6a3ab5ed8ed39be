"""Where a database of MLflow and its artifacts lie on this machine, also after they were moved."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from ptal_ray.errors import TrackingError

LOCKED_WITHIN_S = 10.0  # another process may be in the middle of writing
ARTIFACTS = "mlruns"


def is_file(uri: str) -> bool:
    """Whether a tracking URI is a SQLite file."""
    return uri.startswith("sqlite:///")


def sqlite_path(uri: str) -> Path:
    """File of an sqlite:///FILE address, in which %XX is a character."""
    return Path(unquote(uri.partition(":///")[2].partition("?")[0])).absolute()


def shown_file(uri: str) -> str:
    """An sqlite:///FILE address with the whole path, as commands take it in any folder."""
    return f"sqlite:///{str(sqlite_path(uri)).replace('%', '%25').replace('?', '%3F')}"


def sqlite_uri(path: Path) -> str:
    """The address of a SQLite file; relative to the working directory where the whole path has a %
    or ?, for which MLflow would make a folder of another name.

    Raises:
        TrackingError: the relative path has one too.
    """
    shown = str(path)
    if set("%?") & set(shown):
        shown = os.path.relpath(path)
    if set("%?") & set(shown):
        raise TrackingError(
            f"MLflow: {path}: a database address cannot contain % or ?; start in {path.parent} or "
            "set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{shown}"


def database_problem(path: Path) -> str:
    """Why nothing can be written to a SQLite file, and what to do; "" where it can."""
    folder = path.parent
    elsewhere = "choose another with MLFLOW_TRACKING_URI=sqlite:///FILE"
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"the folder {folder} does not exist or cannot be written; {elsewhere}"
    if not path.exists():
        return ""
    if not os.access(path, os.W_OK):
        return f"the file cannot be written; {elsewhere}"
    try:
        with closing(sqlite3.connect(path, timeout=LOCKED_WITHIN_S)) as database:
            database.execute("begin immediate")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            return f"{error}; {elsewhere}"
        return (
            f"another process has held the file for {LOCKED_WITHIN_S:g} s; end that process, or "
            + elsewhere
        )
    except sqlite3.Error as error:
        return f"{error}; {elsewhere}"
    return ""


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its artifacts; None for where MLflow puts them itself, which a
    server knows, and which goes wrong where it takes the path for a quoted one."""
    folder = str(Path.cwd() / ARTIFACTS / experiment)
    if uri.startswith("http") or unquote(folder) == folder:
        return None
    return "file://" + quote(folder)


def follow_move(database: Path, experiment_id: str, location: str) -> str:
    """Leads an experiment whose folder was moved with its database to where the folder is now.

    Args:
        database: SQLite file.
        experiment_id: of an experiment that was there before.
        location: of its artifacts, as the database has it.

    Returns:
        A line for the user; "" where nothing was moved.
    """
    was = Path(unquote(location.removeprefix("file://")) if "://" in location else location)
    root, mark, below = location.rpartition(f"/{ARTIFACTS}/")
    now = database.parent / ARTIFACTS / unquote(below)
    if not mark or was.exists() or was == now or location.startswith("s3://"):
        return ""
    if not now.is_dir():
        return f"artifacts of experiment {experiment_id} go to {was}, as its database says"
    quoted = "file://" + quote(str(now)) if "://" in location or "%" in str(now) else str(now)
    with closing(sqlite3.connect(database, timeout=LOCKED_WITHIN_S)) as tables, tables:
        tables.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            (quoted, int(experiment_id)),
        )
        tables.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?) "
            "where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            (quoted, len(location) + 1, int(experiment_id), len(location), location),
        )
    return f"its folder was moved: artifacts that lay in {was} are found in {now}"
