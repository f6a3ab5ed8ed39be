"""Follows a study's event log and writes it to MLflow, in a thread that no search waits for.

How far it came lies in <study>/mlflow_state.json. When the server is away, the search goes on: the
events stay in the log, the thread repeats with growing pauses, and what is still missing when the
search ends is sent later by `python -m ptal_ray.report --log STUDY_DIR`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ptal_ray.errors import DataError, TrackingError
from ptal_ray.storage.lock import locked
from ptal_ray.storage.place import check_links
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.event_types import Event, StudyStart
from ptal_ray.study.events import parse_events
from ptal_ray.study.view import StudyView
from ptal_ray.tracking import server as mlflow_server
from ptal_ray.tracking.experiments import dataset_input
from ptal_ray.tracking.machine import Machine
from ptal_ray.tracking.model import model_path, recommended_run, registered_name
from ptal_ray.tracking.reach import check
from ptal_ray.tracking.runs import Artifact, Round
from ptal_ray.tracking.server import Refused, Server, one_line
from ptal_ray.tracking.views import links, of_study, opens_views

POLL_S = 0.5  # between looks at the log
PAUSE = 100.0  # times what a round of writing took: one percent of a core, and events of many
# trials share their requests
LONGEST_ROUND_PAUSE_S = 10.0
LONGEST_PAUSE_S = 30.0  # between attempts while the server is away
ROUND_BYTES = 1 << 20  # of events written before the position is saved
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What mlflow_state.json holds.

    Args:
        study_id: of the log; a new log starts from nothing.
        tracking_uri: without password.
        experiment: its name.
        offset: bytes of the log that MLflow has.
        runs: run id of each `RunUpdate.key`.
        waiting: artifacts not uploaded yet.
        refused: what MLflow declined and will never have.
        experiment_id: of the experiment.
        views: whether this MLflow is known to open saved views.
    """

    study_id: str = ""
    tracking_uri: str = ""
    experiment: str = ""
    offset: int = 0
    runs: dict[str, str] = field(default_factory=dict)
    waiting: tuple[Artifact, ...] = ()
    refused: tuple[str, ...] = ()
    experiment_id: str = ""
    views: bool = False


class MlflowTracker:
    """Logs one study; one process at a time.

    Args:
        study_dir: holds events.jsonl, now or later.
        tracking_uri: None for $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working
            directory.
        experiment: its name; None for what MLFLOW_EXPERIMENT_NAME or _ID says, else
            ptal/<dataset>, with the dataset of the study.
    """

    def __init__(
        self, study_dir: Path, tracking_uri: str | None = None, experiment: str | None = None
    ) -> None:
        self.study_dir, self.experiment = Path(study_dir).absolute(), experiment
        self.uri = mlflow_server.default_uri(tracking_uri)
        self._log = self.study_dir / "events.jsonl"
        self._state = _State(tracking_uri=mlflow_server.redacted(self.uri))
        self._view = StudyView()
        self._server: Server | None = None
        self._machine = Machine()
        self._source: dict[str, str] = {}  # tags of every run
        self._dataset_input: Any = None  # input of every run
        self._registered = False
        self._trouble = ""  # why the last attempt failed; empty where it did not
        self._doubtful = False  # a request that failed may have been served nevertheless
        self._patience_s = float("inf")  # without progress, once the study has ended
        self._stop_at = float("inf")  # no attempt begins later (monotonic seconds)
        self._wake = threading.Event()
        self._guard = threading.Lock()  # of _state
        self._held = ExitStack()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Connects (2-4 s, most of it to import MLflow and to make a fresh database), then logs
        in a thread.

        Raises:
            TrackingError: nothing answers within seconds, it lets nobody in, the experiment is
                deleted, or another process logs this study.
            DataError: something in the study directory leads out of it.
        """
        if self._log.exists():
            check_links(self.study_dir)  # what they lead to would be uploaded
            StudyView.read(self.study_dir)
        check(self.uri)
        self.study_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = locked(self.study_dir / ".mlflow.lock", wait=False)
            if not stack.enter_context(lock):
                raise TrackingError(f"{self.study_dir}: another process is logging it to MLflow")
            self._server = Server(self.uri)
            if dataset := self._dataset():  # a deleted experiment is said now
                self._server.experiment(self._experiment_name(dataset))
            self._held = stack.pop_all()
        self._thread.start()

    def attach(self, folder: Path) -> None:
        """Uploads a folder (a report) to the study's run once all events are logged, and its
        best.yaml, which names the ensemble too, in place of the one that the events gave."""
        report = Path(folder).absolute()
        attached = [Artifact(run="study", name="report", path=str(report))]
        if (best := report / "best.yaml").exists():
            attached.append(Artifact(run="study", path=str(best)))
        with self._guard:
            kept = tuple(a for a in self._state.waiting if a not in attached)
            self._save(waiting=_union(kept, tuple(attached)))
        self._wake.set()

    def close(self, timeout_s: float = 30.0) -> tuple[str, ...]:
        """Logs what is left and ends the thread.

        Args:
            timeout_s: seconds without progress after which the rest stays in the log.

        Returns:
            One line for each thing that MLflow lacks and what to do; nothing if it has all.
        """
        self._patience_s = timeout_s
        self._stop_at = time.monotonic() + timeout_s
        self._wake.set()
        while self._thread.is_alive() and (left := self._stop_at + 0.5 - time.monotonic()) > 0:
            self._thread.join(left)
        self._held.close()
        return self._missing()

    def _missing(self) -> tuple[str, ...]:
        with self._guard:
            state = self._state
        data = self._log.read_bytes() if self._log.exists() else b""
        events, files = data[state.offset :].count(b"\n"), len(state.waiting)
        lines = []
        if events or files:
            reason = f" ({self._trouble})" if self._trouble else ""
            lines.append(
                f"MLflow at {state.tracking_uri}{reason}: {events} of {data.count(bytes([10]))} "
                f"events and {files} files are not logged; they lie in {self._log}; send them with "
                f"`python -m ptal_ray.report --log {shlex.quote(str(self.study_dir))}`"
            )
        lines += [f"MLflow at {state.tracking_uri} declined {what}" for what in state.refused[:5]]
        if len(state.refused) > 5:
            lines.append(f"MLflow declined {len(state.refused) - 5} more writes")
        return tuple(lines)

    def _follow(self) -> None:
        """The thread: rounds until told to stop and nothing is left, or time is up."""
        pause = 1.0
        while True:
            stopping = self._stop_at < float("inf")  # asked before the round: it then sees all
            began = time.thread_time()
            try:
                busy = self._round()
                if self._trouble:
                    _LOG.warning("MLflow at %s answers again", self._state.tracking_uri)
                self._trouble, pause = "", 1.0
            except Exception as error:  # whatever a server can do to us must not end the thread
                self._failed(error)
                busy, pause = False, min(2 * pause, LONGEST_PAUSE_S)
                if isinstance(error, TrackingError):
                    return  # of what a user has to change
            if stopping and busy:
                self._stop_at = time.monotonic() + self._patience_s
            left = self._stop_at - time.monotonic()
            if left <= 0 or (stopping and not busy and not self._trouble):
                return
            if busy and (stopping or self._behind()):
                continue
            if busy:
                took = time.thread_time() - began
                self._wake.wait(min(PAUSE * took, LONGEST_ROUND_PAUSE_S, left))
                continue
            self._wake.wait(min(pause if self._trouble else POLL_S, left))
            if not stopping:
                self._wake.clear()
            elif self._trouble:  # the event stays set: wait in earnest
                time.sleep(min(pause, 1.0, left))

    def _failed(self, error: Exception) -> None:
        known, self._trouble = bool(self._trouble), one_line(error)
        self._doubtful = True
        if not known:
            _LOG.warning(
                "MLflow at %s: %s; the search continues, and events are kept in %s",
                self._state.tracking_uri, self._trouble, self._log,
            )  # fmt: skip

    def _round(self) -> bool:
        """Writes the next part of the log, then files; returns whether there may be more."""
        assert self._server is not None
        first = self._first_line()
        if not first:
            return False  # the study has not begun
        study_id = hashlib.sha256(first).hexdigest()[:32]
        if self._state.study_id != study_id:
            self._restore(study_id, self._experiment_name(self._begun(first).dataset))
        if self._server.study_id != study_id:
            self._server.open(study_id, self._state.experiment, self._state.runs)
            self._describe(self._begun(first), study_id)
        elif self._trouble:
            self._server.find_runs()
        events, offset = self._next_events()
        if events:
            self._write(events, offset)
            return True
        self._server.add_metrics("study", self._machine.look())
        return self._upload() or self._register() or self._settled()

    def _begun(self, first: bytes) -> StudyStart:
        """The event of the first line of the log."""
        (study,) = parse_events([first], self._log)
        if not isinstance(study, StudyStart):
            raise DataError(
                f"{self._log}:1: is not the start of a study; restore the first line of this log"
            )
        return study

    def _describe(self, study: StudyStart, study_id: str) -> None:
        """What every run of the study gets, and the saved views of the study."""
        assert self._server is not None
        names = ("method", "dataset", "study", "features", "git_commit", "protocol")
        self._source = {name: str(getattr(study, name)) for name in names}
        self._dataset_input = dataset_input(study)
        views = of_study(study, study_id)
        id = self._server.save_views(views, round(study.time * 1000))
        with self._guard:
            self._save(experiment_id=id, views=opens_views(self._state.tracking_uri))

    def _register(self) -> bool:
        """Registers the recommended model once the study is done; returns whether it did."""
        assert self._server is not None
        key, path = recommended_run(self._view), model_path(self._view, self.study_dir)
        if self._registered or path is None or key not in self._server.runs:
            return False
        self._registered = True
        try:
            self._server.register(key, registered_name(self._view), path)
        except Refused as error:
            with self._guard:
                self._save(refused=(*self._state.refused, str(error)))
        return True

    def _experiment_name(self, dataset: str) -> str:
        assert self._server is not None
        return self.experiment or self._server.chosen_experiment(f"ptal/{dataset}")

    def _dataset(self) -> str:
        """The dataset of the study; "" before its directory says so."""
        if first := self._first_line():
            return self._begun(first).dataset
        path = self.study_dir / "study.json"
        return str(json.loads(path.read_text("utf-8"))["space"]["dataset"]) if path.exists() else ""

    def _settled(self) -> bool:
        """Once all is written after a failure: what the server did late is taken back."""
        assert self._server is not None
        if self._doubtful:
            self._server.find_runs()
            self._doubtful = False
        return False

    def _first_line(self) -> bytes:
        if not self._log.exists():
            return b""
        with self._log.open("rb") as file:
            line = file.readline()
        return line if line.endswith(b"\n") else b""

    def _restore(self, study_id: str, experiment: str) -> None:
        """Takes up where an earlier process stopped, if it wrote to the same place."""
        path = self.study_dir / "mlflow_state.json"
        old = _read_state(path) if path.exists() else _State()
        fresh = replace(self._state, study_id=study_id, experiment=experiment)
        same = (study_id, fresh.tracking_uri, experiment)
        if (old.study_id, old.tracking_uri, old.experiment) != same:
            old = replace(fresh, waiting=())
        self._view = StudyView.from_events(self._events(0, old.offset)[0])
        with self._guard:
            waiting = _union(old.waiting, self._state.waiting)
            self._save(**{**vars(old), "waiting": waiting})

    def _next_events(self) -> tuple[list[Event], int]:
        """Events after the saved position, and the position after them."""
        size = self._log.stat().st_size - self._state.offset
        return self._events(self._state.offset, min(size, ROUND_BYTES))

    def _behind(self) -> bool:
        """Whether the log holds more than one round can write."""
        return self._log.stat().st_size - self._state.offset > ROUND_BYTES

    def _events(self, start: int, size: int) -> tuple[list[Event], int]:
        """Events of the whole lines within `size` bytes from `start`, at least one line."""
        with self._log.open("rb") as file:
            file.seek(start)
            data = file.read(size)
            if size == ROUND_BYTES and b"\n" not in data:
                data += file.readline()
        whole = data[: data.rfind(b"\n") + 1]
        return parse_events(whole.splitlines(), self._log), start + len(whole)

    def _write(self, events: list[Event], offset: int) -> None:
        """One round of events; the position moves only when all of it is written."""
        assert self._server is not None
        todo = Round(self._view, events, self.study_dir)
        refused = []
        for update in todo.updates.values():
            try:
                self._server.write(update, self._source, self._dataset_input)
            except Refused as error:
                refused.append(str(error))
        files = tuple(a for u in todo.updates.values() for a in u.artifacts)
        self._view = todo.view
        with self._guard:
            self._save(
                offset=offset, runs=self._server.runs, waiting=_union(self._state.waiting, files),
                refused=(*self._state.refused, *refused),
            )  # fmt: skip

    def _upload(self) -> bool:
        """Uploads one waiting artifact; returns whether there was one."""
        assert self._server is not None
        with self._guard:
            waiting = self._state.waiting
        if not waiting:
            return False
        refused = []
        try:
            self._server.upload(waiting[0])
        except Refused as error:
            refused.append(str(error))
        with self._guard:
            left = tuple(a for a in self._state.waiting if a != waiting[0])
            self._save(waiting=left, refused=(*self._state.refused, *refused))
        return True

    def _save(self, **changes: Any) -> None:
        """Changes the state, also on disk once the log has an identity. Called under `_guard`."""
        self._state = replace(self._state, **changes)
        if self._state.study_id:
            write_whole(self.study_dir / "mlflow_state.json", json.dumps(asdict(self._state)))


def view_links(study_dir: Path) -> dict[str, str]:
    """Addresses of the table of MLflow by what they show; empty before a study is logged."""
    path = Path(study_dir) / "mlflow_state.json"
    state = _read_state(path) if path.exists() else _State()
    if not state.experiment_id:
        return {}
    return links(state.tracking_uri, state.experiment_id, state.study_id, state.views)


def _read_state(path: Path) -> _State:
    """The saved state; an unreadable one counts as none, because writing twice is harmless."""
    try:
        plain = json.loads(path.read_text("utf-8"))
        waiting = tuple(Artifact(**a) for a in plain.pop("waiting"))
        return _State(**plain | {"waiting": waiting, "refused": tuple(plain["refused"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("%s: unreadable (%s); logging the study from its start", path, error)
        return _State()


def _union(old: tuple[Artifact, ...], new: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
    """Waiting artifacts with the newest version of each, in order; what `attach` added is last."""
    places = {(a.run, a.name, a.path): a for a in (*old, *new)}
    return tuple(sorted(places.values(), key=lambda a: a.run == "study" and bool(a.path)))
