"""A tracking server or database: found reachable within seconds, and written to idempotently."""

from __future__ import annotations

import getpass
import itertools
import logging
import os
import re
import socket
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ptal_ray.errors import TrackingError
from ptal_ray.storage.lock import locked
from ptal_ray.storage.place import results_root
from ptal_ray.tracking.place import (
    LOCKED_WITHIN_S,
    artifact_location,
    database_problem,
    follow_move,
    is_file,
    shown_file,
    sqlite_path,
    sqlite_uri,
)
from ptal_ray.tracking.runs import Artifact, RunUpdate

ANSWER_WITHIN_S = 3.0
_LOG = logging.getLogger(__name__)
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ENVIRONMENT = {  # read by MLflow at every request; what a user has set stays
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the tracker itself waits and repeats
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for every run
}
_REFUSALS = {  # repeating would not help
    "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}  # fmt: skip


def default_uri(given: str | None) -> str:
    """`given`, else $MLFLOW_TRACKING_URI, else mlflow.db beside the results; a TrackingError where
    no address can name that file."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or sqlite_uri(results_root() / "mlflow.db")


def tracking_uri() -> str:
    """Where MLflow runs go, without a password."""
    return redacted(default_uri(None))


def redacted(uri: str) -> str:
    """`uri` without user, password, and what its query calls by such a name."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme.startswith("sqlite"):
        return shown_file(uri) if is_file(uri) else uri
    rest = rest.rpartition("@")[2]  # the last one, should the password hold others
    secret = r"(?i)([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*"
    return scheme + mark + re.sub(secret, r"\1***", rest)


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
        elif scheme in _PORTS:
            address = (parts.hostname or "localhost", parts.port or _PORTS[scheme])
            socket.create_connection(address, timeout=ANSWER_WITHIN_S).close()
        elif scheme == "sqlite":
            return database_problem(sqlite_path(uri))
        elif not scheme.startswith("databricks"):
            return "MLflow stores runs at sqlite:///FILE, postgresql://, mysql:// or http(s)://"
    except urllib.error.HTTPError:
        return ""  # it answers; whether it lets us in shows with the first request
    except ValueError:  # of the port; its text might show a password
        return "the address is not scheme://user:password@host:port/name"
    except OSError as error:
        return one_line(error)
    return ""


class Refused(Exception):
    """MLflow declines a write, and would decline it again."""


class Server:
    """Writes the runs of one study at a time. Every call may be repeated safely.

    Args:
        uri: tracking URI; a fresh SQLite file gets its tables.

    Raises:
        TrackingError: it is no MLflow server, or lets nobody in.
    """

    def __init__(self, uri: str) -> None:
        self.study_id, self.runs = "", dict[str, str]()
        self._uri, self._experiment = uri, ""
        try:
            self._client = _client(uri)
        except ModuleNotFoundError as error:  # of the driver that the address names
            raise TrackingError(
                f"MLflow at {redacted(uri)}: needs the package {error.name}; install it (for "
                "postgresql:// with pip install 'psycopg[binary]')"
            ) from error
        except Exception as error:  # MLflow, SQLAlchemy and drivers raise many kinds
            raise TrackingError(f"MLflow at {redacted(uri)}: {one_line(error)}") from error

    def open(self, study_id: str, experiment: str, known: Mapping[str, str]) -> None:
        """Turns to a study: `study_id` marks its runs, and those that exist are found by it.

        Args:
            study_id: of the study.
            experiment: name of the experiment, made where it is missing.
            known: run ids by key, as an earlier process left them.

        Raises:
            TrackingError: the experiment is deleted.
        """
        self._experiment = self.experiment(experiment)
        self.runs = dict(known)
        self.find_runs(study_id)
        self.study_id = study_id

    def chosen_experiment(self, default: str) -> str:
        """Name of the experiment that MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME asks for,
        else `default`.

        Raises:
            TrackingError: there is none of that id, or the two disagree.
        """
        id, name = (
            os.environ.get(f"MLFLOW_EXPERIMENT_{end}", "").strip() for end in ("ID", "NAME")
        )
        if not id:
            return name or default
        try:
            found = str(self._client.get_experiment(id).name)
        except _mlflow_exception() as error:
            raise TrackingError(
                f"MLFLOW_EXPERIMENT_ID {id}: {one_line(error)}; unset it, or give the id of an "
                f"experiment at {redacted(self._uri)}"
            ) from error
        if name and name != found:
            raise TrackingError(
                f"MLFLOW_EXPERIMENT_ID {id} is {found!r} and MLFLOW_EXPERIMENT_NAME is {name!r}; "
                "unset one of them"
            )
        return found

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, made where it is missing; one that was moved is followed.

        Raises:
            TrackingError: it was deleted, which leaves its name taken.
        """
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return _new_experiment(self._client, name, artifact_location(self._uri, name))
        id = _living(found)
        if is_file(self._uri):
            moved = follow_move(sqlite_path(self._uri), id, str(found.artifact_location))
            if moved:
                _LOG.warning("MLflow at %s: %s", redacted(self._uri), moved)
        return id

    def find_runs(self, study_id: str = "") -> None:
        """Reads from the server which runs exist: one may have been made unnoticed. Of runs made
        twice, because the server was slow to answer, the one that was written to stays."""
        mine = f"tags.`ptal.study_id` = '{study_id or self.study_id}'"
        found, twice = dict[str, str](), list[str]()
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], mine, max_results=1000, page_token=token or None,
                order_by=["attributes.start_time DESC"],
            )  # fmt: skip
            for run in page:
                key, id = run.data.tags["ptal.run"], run.info.run_id
                first = found.setdefault(key, id)
                if first != id:
                    found[key] = id if self.runs.get(key) == id else first
                    twice.append(first if found[key] == id else id)
            token = page.token or None
        for id in twice:
            self._client.delete_run(id)
        self.runs = found

    def write(self, update: RunUpdate, source: Mapping[str, str]) -> None:
        """Makes the run where it is missing and adds what it gets.

        Args:
            update: what to write.
            source: tags that every run of the study carries.

        Raises:
            Refused: MLflow declines the values.
        """
        from mlflow.entities import Metric, Param, RunTag

        with _refusals(f"run {update.key}"):
            tags = update.tags
            if update.key not in self.runs:
                self.runs[update.key] = self._create(update, dict(source) | tags)
                tags = {}
            run = self.runs[update.key]
            metrics = [Metric(n, v, ms, s) for (n, s), (v, ms) in update.metrics.items()]
            params = [Param(k, v) for k, v in update.params.items()]
            columns = (
                _parts(metrics, 800),
                _parts(params, 100),
                _parts([RunTag(k, v) for k, v in tags.items()], 100),
            )
            for m, p, t in itertools.zip_longest(*columns, fillvalue=()):
                self._client.log_batch(run, metrics=m, params=p, tags=t)
            if update.status == "RUNNING":
                self._client.update_run(run, status="RUNNING")
            elif update.status:
                self._client.set_terminated(run, update.status, end_time=update.ended_ms)

    def upload(self, artifact: Artifact) -> None:
        """Uploads a file, a folder or a text.

        Raises:
            Refused: it is gone, or MLflow declines it.
        """
        run = self.runs.get(artifact.run)
        if run is None or (artifact.path and not Path(artifact.path).exists()):
            raise Refused(f"{artifact.path or artifact.name}: the file or its run is gone")
        with _refusals(artifact.path or artifact.name):
            if not artifact.path:
                self._client.log_text(run, artifact.text, artifact.name)
            elif Path(artifact.path).is_dir():
                self._client.log_artifacts(run, artifact.path, artifact.name or None)
            else:
                self._client.log_artifact(run, artifact.path, artifact.name or None)

    def _create(self, update: RunUpdate, tags: dict[str, str]) -> str:
        fixed = {"ptal.study_id": self.study_id, "ptal.run": update.key, "mlflow.user": _user()}
        fixed |= {"mlflow.source.name": "ptal_ray.search", "mlflow.source.type": "LOCAL"}
        if "git_commit" in tags:
            fixed["mlflow.source.git.commit"] = tags["git_commit"]
        if update.parent in self.runs:
            fixed["mlflow.parentRunId"] = self.runs[str(update.parent)]
        run = self._client.create_run(
            self._experiment, start_time=update.started_ms, tags=tags | fixed, run_name=update.name
        )
        return str(run.info.run_id)


def one_line(error: BaseException) -> str:
    """What went wrong, without passwords and of bounded length: the reason that the operating
    system gave where it did, else the first line of the message."""
    deepest: BaseException | None = error
    while deepest:
        if isinstance(deepest, OSError) and deepest.strerror:
            return deepest.strerror
        if isinstance(deepest, ConnectionError):
            return _without_secrets(str(deepest))
        deepest = deepest.__cause__ or deepest.__context__
    status = re.search(r"too many (\d+) error responses", str(error))
    if status:
        return f"it answers with HTTP status {status[1]}; its own log says why (the database?)"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].partition("(Caused by ")[2].removesuffix(")")  # after the whole request
    return _without_secrets(reason or lines[0])[:200]


def _without_secrets(text: str) -> str:
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name, "").strip():
            text = text.replace(secret, "***")  # a header that HTTP does not allow is quoted whole
    return re.sub(r"//\S+@", "//", text)


def quiet_mlflow() -> None:
    """Imports MLflow without what it says beside its errors, which reach us as exceptions."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # SQLAlchemy tells MLflow's authors of a change to come; nothing a user can mend.
    warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
    import mlflow  # noqa: F401

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)


def _client(uri: str) -> Any:
    """An MLflow client; makes the tables of a fresh database, one process at a time."""
    os.environ.pop("MLFLOW_RUN_ID", None)  # of an outer run, which ours are not
    quiet_mlflow()
    from mlflow import MlflowClient

    with _alone(uri):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _alone(uri: str) -> AbstractContextManager[object]:
    """Keeps other processes away while MLflow makes its tables: of several, all but one fail."""
    if is_file(uri):
        path = sqlite_path(uri)
        return locked(path.with_name(f"{path.name}.lock"), wait=True)
    return _postgres_lock(uri) if uri.startswith("postgresql") else nullcontext()


@contextmanager
def _postgres_lock(uri: str) -> Iterator[None]:
    """Holds a lock of the database among all its clients, on whatever machine."""
    import sqlalchemy  # comes with MLflow

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:  # the end of the transaction gives it back
        connection.execute(sqlalchemy.text("select pg_advisory_xact_lock(7067425)"))  # ours alone
        yield


def _new_experiment(client: Any, name: str, location: str | None) -> str:
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except _mlflow_exception():
        found = client.get_experiment_by_name(name)  # another study may just have made it
        if found is None:
            raise
        return _living(found)


def _living(experiment: Any) -> str:
    """The id of an experiment.

    Raises:
        TrackingError: it is deleted.
    """
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow: experiment {experiment.name!r} is deleted; restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, remove it with "
            "`mlflow gc`, or name another with MLFLOW_EXPERIMENT_NAME"
        )
    return str(experiment.experiment_id)


def _mlflow_exception() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    kind: type[Exception] = MlflowException
    return kind


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except _mlflow_exception() as error:
        if getattr(error, "error_code", "") in _REFUSALS:
            raise Refused(f"{what}: {one_line(error)}") from error
        raise


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[k : k + size] for k in range(0, len(items), size))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for this user
        return "unknown"
