"""Whether a tracking server or database answers, found out within seconds."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from ptal_ray.errors import TrackingError
from ptal_ray.tracking.place import LOCKED_WITHIN_S, database_problem, is_file, sqlite_path
from ptal_ray.tracking.server import one_line, redacted

ANSWER_WITHIN_S = 3.0
_POSTGRES_PORT = 5432


def check(uri: str) -> None:
    """Asks the server for a sign of life; takes at most a few seconds.

    Raises:
        TrackingError: it does not answer, or MLflow cannot write to such an address.
    """
    problem: list[str] = []
    worker = threading.Thread(target=lambda: problem.append(_problem(uri)), daemon=True)
    worker.start()  # a thread, because the time that names take to resolve cannot be limited
    worker.join((LOCKED_WITHIN_S if is_file(uri) else ANSWER_WITHIN_S) + 1)
    found = problem[0] if problem else "no answer"
    if found and not is_file(uri):
        found += "; start the server, or unset MLFLOW_TRACKING_URI to log to ./mlflow.db"
    if found:
        raise TrackingError(f"MLflow at {redacted(uri)}: {found}")


def _problem(uri: str) -> str:
    """Why MLflow cannot be reached there; empty where it seems so."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme != "sqlite" and not uri.count("@") == parts.netloc.count("@") <= 1:
        return "an @ : / ? or # in the password is written %40 %3A %2F %3F or %23"
    try:
        if scheme in ("http", "https"):
            health = f"{redacted(uri).rstrip('/')}/health"
            urllib.request.urlopen(health, timeout=ANSWER_WITHIN_S).close()
        elif scheme == "postgresql":
            address = (parts.hostname or "localhost", parts.port or _POSTGRES_PORT)
            socket.create_connection(address, timeout=ANSWER_WITHIN_S).close()
        elif scheme == "sqlite":
            return database_problem(sqlite_path(uri))
        elif not uri.startswith("databricks"):  # which MLflow reaches by its own profiles
            return "write sqlite:///FILE, postgresql://, http(s):// or databricks"
    except urllib.error.HTTPError:
        return ""  # it answers; whether it lets us in shows with the first request
    except ValueError:  # of the port; its text might show a password
        return "the address is not scheme://user:password@host:port/name"
    except OSError as error:
        return one_line(error)
    return ""
