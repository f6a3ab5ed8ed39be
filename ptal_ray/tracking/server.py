"""A tracking server or database: found reachable within seconds, and written to idempotently."""

from __future__ import annotations

import getpass
import itertools
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ptal_ray.errors import TrackingError
from ptal_ray.storage.lock import locked
from ptal_ray.storage.place import results_root
from ptal_ray.tracking import model, views
from ptal_ray.tracking.experiments import living, new_experiment, set_tag
from ptal_ray.tracking.pictures import with_addresses
from ptal_ray.tracking.place import (
    artifact_location,
    follow_move,
    is_file,
    shown_file,
    sqlite_path,
    sqlite_uri,
)
from ptal_ray.tracking.runs import Artifact, RunUpdate

_LOG = logging.getLogger(__name__)
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
        self._without_input = set[str]()  # run ids
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
            return self._new(name)
        id = living(found)
        if is_file(self._uri):
            moved = follow_move(sqlite_path(self._uri), id, str(found.artifact_location))
            if moved:
                _LOG.warning("MLflow at %s: %s", redacted(self._uri), moved)
        return id

    def _new(self, name: str) -> str:
        location = artifact_location(self._uri, name)
        return new_experiment(self._client, name, location, dict([views.KIND]))

    def save_views(self, saved: Iterable[views.View], time_ms: int) -> str:
        """Makes saved views of the experiment; returns its id.

        Args:
            saved: the views; one of the same key is replaced.
            time_ms: when, milliseconds since 1970.
        """
        for view in saved:
            set_tag(self._client, self._experiment, *view.tag(time_ms))
        return self._experiment

    def add_metrics(self, key: str, values: Mapping[tuple[str, int], tuple[float, int]]) -> None:
        """Adds (name, step) -> (value, milliseconds) to the run `key` where it exists."""
        from mlflow.entities import Metric

        if values and key in self.runs:
            metrics = [Metric(n, v, ms, s) for (n, s), (v, ms) in values.items()]
            self._client.log_batch(self.runs[key], metrics=metrics)

    def register(self, key: str, name: str, path: Path) -> None:
        """Registers the model file of a run.

        Raises:
            Refused: MLflow declines it.
        """
        with _refusals(f"model {name}"):
            model.register(self._client, self._uri, name, self.runs[key], path)

    def find_runs(self, study_id: str = "") -> None:
        """Reads from the server which runs exist: one may have been made unnoticed. Of runs made
        twice, because the server was slow to answer, the one that was written to stays."""
        mine = f"tags.`ptal.study_id` = '{study_id or self.study_id}'"
        found, twice = dict[str, str](), list[str]()
        self._without_input = set()
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment], mine, max_results=1000, page_token=token or None,
                order_by=["attributes.start_time DESC"],
            )  # fmt: skip
            for run in page:
                key, id = run.data.tags["ptal.run"], run.info.run_id
                if not run.inputs.dataset_inputs:
                    self._without_input.add(id)
                first = found.setdefault(key, id)
                if first != id:
                    found[key] = id if self.runs.get(key) == id else first
                    twice.append(first if found[key] == id else id)
            token = page.token or None
        for id in twice:
            self._client.delete_run(id)
        self.runs = found

    def write(
        self, update: RunUpdate, source: Mapping[str, str], dataset: Any | None = None
    ) -> None:
        """Makes the run where it is missing and adds what it gets.

        Args:
            update: what to write.
            source: tags that every run of the study carries.
            dataset: input of the study and of its final runs, see `experiments.dataset_input`; a
                search has too many trials for one more request each.

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
            if dataset is not None and update.kind != "trial" and run in self._without_input:
                self._log_input(run, dataset)
                self._without_input.discard(run)
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

    def _log_input(self, run: str, dataset: Any) -> None:
        """Log the dataset of a run. MLflow looks for it and then creates it: if another study has
        created it in between, the request is declined, and a second one finds it."""
        try:
            self._client.log_inputs(run, datasets=[dataset])
        except _mlflow_exception() as error:
            if getattr(error, "error_code", "") not in _REFUSALS:
                raise
            self._client.log_inputs(run, datasets=[dataset])

    def upload(self, artifact: Artifact) -> None:
        """Uploads a file, a folder or a text.

        Raises:
            Refused: it is gone, or MLflow declines it.
        """
        run = self.runs.get(artifact.run)
        if run is None or (artifact.path and not Path(artifact.path).exists()):
            raise Refused(f"{artifact.path or artifact.name}: the file or its run no longer exists")
        with _refusals(artifact.path or artifact.name):
            if not artifact.path:
                self._client.log_text(run, artifact.text, artifact.name)
            elif Path(artifact.path).is_dir():
                self._client.log_artifacts(run, artifact.path, artifact.name or None)
                self._link_pictures(run, Path(artifact.path), artifact.name)
            else:
                self._client.log_artifact(run, artifact.path, artifact.name or None)

    def _link_pictures(self, run: str, folder: Path, name: str) -> None:
        """Uploads the Markdown files of a folder again, with pictures that MLflow shows."""
        for path in folder.glob("*.md"):
            text = path.read_text("utf-8")
            linked = with_addresses(text, redacted(self._uri), run, name)
            if linked != text:
                self._client.log_text(run, linked, f"{name}/{path.name}")

    def _create(self, update: RunUpdate, tags: dict[str, str]) -> str:
        fixed = {"ptal.study_id": self.study_id, "ptal.run": update.key, "mlflow.user": _user()}
        fixed["kind"] = update.kind
        fixed |= {"mlflow.source.name": "ptal_ray.search", "mlflow.source.type": "LOCAL"}
        if "git_commit" in tags:
            fixed["mlflow.source.git.commit"] = tags["git_commit"]
        if update.parent in self.runs:
            fixed["mlflow.parentRunId"] = self.runs[str(update.parent)]
        run = self._client.create_run(
            self._experiment, start_time=update.started_ms, tags=tags | fixed, run_name=update.name
        )
        self._without_input.add(run.info.run_id)
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
        return f"the server answers with HTTP status {status[1]}; see its log (is the database up?)"
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

    with _locked(uri):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def _locked(uri: str) -> AbstractContextManager[object]:
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
