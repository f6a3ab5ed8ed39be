"""A training run as it is sent to a process, and its execution there.

A checkpoint always has its report beside it, and a report that did not reach the driver is sent
again. Process and driver may be on machines without a shared file system. Then the data has an
origin that every machine can read, and the study a remote storage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ptal_ray.data.datasets import present
from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.errors import DataError, PtalError, StorageError, full_storage_named
from ptal_ray.space.domain import Scalar
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.event_types import DEPLOY, TEST, FinalReport
from ptal_ray.study.events import dumps
from ptal_ray.study.results import Failed, Reported, Result, StandBy
from ptal_ray.study.run_folder import CHECKPOINT, DETECTIONS, MODEL, REPORT, SCORES, RunFolder
from ptal_ray.study.study import Study
from ptal_ray.training.config import TrialConfig, TrialReport
from ptal_ray.training.decoding import write_scores
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

STANDBY = ""  # instead of a job: keep the process and its workers for a later job
STANDBY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run, a search trial or a run after the search, as a process needs it.

    Args:
        config: the configuration; `store` is a path on the driver's machine.
        directory: of the study, absolute, on all machines that share a file system.
        folder: of this run, relative to it.
        reported_step: the last step that the driver has a report of; 0 for none.
        asked_at: seconds since 1970; 0 until it is assigned.
        role: of a run after the search: "reselect" or "test"; without a test split "fold" and
            "deploy", see `no_test_split.py`; "" for a search trial.
        arm: of a run after the search: "candidate1", ... (best first) for reselect; else "best",
            "default", and "validated" if the test split selected.
        repeat: of a run after the search: 0, 1, ..., of role "fold" the fold.
        remote: s3:// address of the study; "" if it has only `directory`.
        source: origin of the data for any machine, see `data.datasets.origin`.
        data_hash: content hash of the data; "" trusts the path in `config`.
    """

    config: TrialConfig
    directory: str
    folder: str
    asked_at: float = 0.0
    reported_step: int = 0
    role: str = ""
    arm: str = ""
    repeat: int = 0
    remote: str = ""
    source: str = ""
    data_hash: str = ""

    @property
    def study_directory(self) -> Path:
        """The folder of the study on this machine."""
        return self._place.here

    @property
    def path(self) -> Path:
        """The folder of this run on this machine."""
        return self.study_directory / self.folder

    @property
    def files(self) -> RunFolder:
        """The files of this run."""
        return RunFolder(self._place / self.folder)

    @property
    def _place(self) -> Folder:
        return Folder.parse(self.remote or self.directory)

    @property
    def deployable(self) -> bool:
        """Whether it writes a model file: if it is trained on the whole training split."""
        return self.role in (TEST, DEPLOY)

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it back."""
        return json.dumps(vars(self) | {"config": self.config.to_json()})

    @staticmethod
    def from_json(text: str) -> Job:
        """The job that `to_json` wrote."""
        plain = json.loads(text)
        plain["config"] = TrialConfig.from_json(plain["config"])
        return Job(**plain)


def study_job(study: Study, config: TrialConfig, folder: str) -> Job:
    """The job of a search trial; for other runs, `role`, `arm` and `repeat` are to be added.

    Args:
        study: the study.
        config: what to train.
        folder: of its files, relative to the study directory.
    """
    return Job(
        config=config, folder=folder, directory=str(study.directory), remote=study.remote,
        source=study.source, data_hash=study.data_hash,
    )  # fmt: skip


def final_event(job: Job, report: TrialReport, detections: Mapping[str, Segments]) -> FinalReport:
    """Writes the detections of a finished final run and returns its event.

    Args:
        job: the run.
        report: its last report.
        detections: of the scored videos, by id; written in the ActivityNet layout.
    """
    classes = FeatureStore.open(job.config.store).info.classes
    job.path.mkdir(parents=True, exist_ok=True)
    write_detections(job.path / DETECTIONS, detections, classes)
    done = _final_report(job, decode=report.decode, step=report.step, metrics=report.metrics)
    return replace(done, detections=f"{job.folder}/{DETECTIONS}")


def diverged_event(job: Job, message: str) -> FinalReport:
    """The event of a run that diverged: the reason, and no metrics."""
    last = job.config.report_steps[-1]
    return replace(
        _final_report(job, decode=job.config.decode, step=last, metrics={}), message=message
    )


def _final_report(
    job: Job, *, decode: dict[str, Scalar], step: int, metrics: dict[str, float]
) -> FinalReport:
    return FinalReport(
        role=job.role, arm=job.arm, seed=job.repeat, run_seed=job.config.seed,
        params=job.config.train, decode=decode, step=step, metrics=metrics,
    )  # fmt: skip


def stand_by() -> StandBy:
    """Wait a moment; the result of a process that waits for a job."""
    time.sleep(STANDBY_S)
    return StandBy()


def unfinished(folder: Path) -> list[Path]:
    """Partial files of a run that a killed process left."""
    names = (CHECKPOINT, REPORT, SCORES, DETECTIONS)
    return [file for name in names for file in folder.glob(f".{name}.*")]


class JobRun:
    """A job in the process that trains it, from its checkpoint to its end.

    Args:
        job: the job.
        device: "cpu", "cuda" or "cuda:k".
        rank, world_size: as for `Trial`; only rank 0 writes files.
    """

    def __init__(self, job: Job, device: str, rank: int = 0, world_size: int = 1) -> None:
        self.job, self.device, self.rank, self.world_size = job, device, rank, world_size
        self.trial: Trial | None = None
        self._note = ""

    def advance(self) -> Result:
        """The next report, with a note if a damaged checkpoint was ignored, or an error that a
        retry would repeat."""
        try:
            with full_storage_named(self.job.study_directory):
                if self.trial is None:
                    try:
                        self._find_data()
                    except DataError as error:
                        return Failed(message=str(error), halt="data")
                    self.trial = self._trial()
                    if (unsent := self._unsent(self.trial)) is not None:
                        return unsent
                return self._advance(self.trial)
        except StorageError as error:
            return Failed(message=str(error), halt="storage")
        except PtalError as error:
            return Failed(message=str(error))

    def _trial(self) -> Trial:
        self.job.files.agree(self.rank, self.world_size)
        trial = start(self.job.config, self.device, self.rank, self.world_size)
        if self.job.files.report() is not None:
            try:
                trial.load(self.job.path / CHECKPOINT)
            except DataError:  # training again only takes time
                self._note = f"{CHECKPOINT} was damaged or of another version; from the start"
        if self.rank == 0:
            for file in unfinished(self.job.path):
                file.unlink()
        return trial

    def _find_data(self) -> None:
        config = self.job.config
        if self.job.data_hash:
            store = present(config.store, self.job.source, self.job.data_hash)
            self.job = replace(self.job, config=replace(config, store=str(store)))

    def _unsent(self, trial: Trial) -> Reported | None:
        saved = self.job.files.report()
        if saved is None or saved.step != trial.step:
            return None
        return saved if trial.done or trial.step > self.job.reported_step else None

    def _advance(self, trial: Trial) -> Reported:
        report = trial.advance()
        first = trial.first_step_at
        result = Reported(
            **vars(report),
            to_first_step_s=first - self.job.asked_at if first else None,
            done=trial.done,
        )
        if self.rank == 0:
            if self.job.role:
                if self.job.deployable:
                    trial.save_model(self.job.path / MODEL, report.decode)
                event = final_event(self.job, report, trial.detections)
                result = replace(result, event=event)
            self._save(trial, result)
        note, self._note = self._note, ""
        return replace(result, note=note)

    def _save(self, trial: Trial, result: Reported) -> None:
        folder = self.job.path
        folder.mkdir(parents=True, exist_ok=True)
        if not self.job.role:
            write_scores(folder / SCORES, trial.scores)
        write_whole(folder / REPORT, dumps(result.plain()))
        trial.save(folder / CHECKPOINT)
        last = (SCORES, DETECTIONS, MODEL) if trial.done else ()
        self.job.files.send(*last, REPORT, CHECKPOINT)
