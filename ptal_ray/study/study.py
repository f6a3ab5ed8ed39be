"""A study: one search space on one feature store, its directory and its runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ptal_ray.data.datasets import present
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, StorageError
from ptal_ray.space.domain import Scalar
from ptal_ray.space.space import SearchSpace, parse_space
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.place import check_links, plain_name
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.choices import PROTOCOLS, SCHEDULERS, SEARCHERS
from ptal_ray.study.paper_compat import check_protocol
from ptal_ray.study.run_folder import RunFolder
from ptal_ray.study.warm_start import Earlier
from ptal_ray.training.config import TrialConfig

MOST_SEED = 2**32  # every generator accepts it, also plus the offsets of final runs


@dataclass(frozen=True, kw_only=True)
class Study:
    """The space, data, budget and settings of a study.

    Args:
        name: <space>-<YYYYmmdd-HHMMSS>, the space as `place.plain_name` writes it.
        directory: <storage>/<name>; study.json, events.jsonl, trials/ and final/ lie in it.
        space: the resolved search space.
        store: path of the feature store.
        data_hash: content hash of that store when the study began.
        seed: those of the searcher and of all runs are derived from it.
        num_trials: number of full trials; in a race the sum of their fractions, as a trial that
            ends early counts in part.
        time_budget_s: no trial starts later than this, and running ones stop at their next report.
        gpu_hours: no trial starts once the trials have used so many GPU hours.
        searcher: one of SEARCHERS; it suggests configurations.
        scheduler: "asha" or "none".
        max_concurrent: trials at a time; None for as many as the resources allow.
        autoscale: request nodes until that many fit.
        keep_checkpoints: how many of the best complete trials keep theirs; None for `final.top`.
        source: origin of the data for any machine: an s3:// address or a name; "" for only `store`.
        remote: s3:// address that mirrors `directory`; "" for none.
        protocol: one of PROTOCOLS; determines whether the test split is sealed.
        overrides: the changes of `--set` and `--dataset` to the file of the space.
        warm_start: configurations of earlier studies, best first.
        points: how new points of training videos are drawn; "" for those of the store.
    """

    name: str
    directory: Path
    space: SearchSpace
    store: Path
    data_hash: str
    num_trials: int
    seed: int = 0
    time_budget_s: float | None = None
    gpu_hours: float | None = None
    searcher: str = "tpe"
    scheduler: str = "asha"
    max_concurrent: int | None = None
    autoscale: bool = False
    keep_checkpoints: int | None = None
    source: str = ""
    remote: str = ""
    protocol: str = PROTOCOLS[0]
    overrides: tuple[str, ...] = ()
    warm_start: tuple[Earlier, ...] = ()
    points: str = ""

    def __post_init__(self) -> None:
        check_protocol(self.space, self.protocol)
        for flag, value, known in (
            ("searcher", self.searcher, SEARCHERS),
            ("scheduler", self.scheduler, SCHEDULERS),
        ):
            if value not in known:
                raise ConfigError(f"--{flag} {value}: unknown; allowed are {', '.join(known)}")
        for flag, number in (
            ("num-trials", self.num_trials),
            ("time-budget", self.time_budget_s),
            ("gpu-hours", self.gpu_hours),
            ("max-concurrent", self.max_concurrent),
            ("keep-checkpoints", self.keep_checkpoints),
        ):
            if number is not None and not 0 < number < float("inf"):
                raise ConfigError(f"--{flag} {number}: must be positive")
        if self.autoscale and self.max_concurrent is None:
            raise ConfigError(
                "--autoscale requires --max-concurrent N: the number of trials that the cluster "
                "scales up to"
            )
        if not 0 <= self.seed < MOST_SEED:
            raise ConfigError(
                f"--seed {self.seed}: must be a whole number from 0 to {MOST_SEED - 1}"
            )

    @property
    def events(self) -> Path:
        """The event log of this study."""
        return self.directory / "events.jsonl"

    @property
    def num_folds(self) -> int:
        """Number of disjoint folds of the training videos in a race."""
        return num_folds(self.space)

    def trial_directory(self, number: int) -> Path:
        """The folder of the checkpoint and the scores of trial `number`."""
        return self.directory / "trials" / f"{number:05d}"

    def run_folder(self, number: int) -> RunFolder:
        """The files of trial `number`."""
        folder = self.trial_directory(number).relative_to(self.directory).as_posix()
        return RunFolder(self.place / folder)

    @property
    def place(self) -> Folder:
        """The folder of its files: its directory, or the address that mirrors it."""
        return Folder.parse(self.remote or str(self.directory))


def num_folds(space: SearchSpace) -> int:
    """Number of disjoint folds of the training videos, each about `val_fraction` of them."""
    return max(2, round(1 / space.selection.val_fraction))


def create_study(
    space: SearchSpace, store: FeatureStore, storage: Path | Folder, **settings: Any
) -> Study:
    """Create a new study directory with its study.json.

    Args:
        space: the resolved search space.
        store: the feature store it runs on.
        storage: folder or s3:// address of all studies.
        settings: fields of `Study` that differ from their default; `num_trials` defaults to the
            budget of the space.

    Raises:
        ConfigError: a setting is wrong.
    """
    study = Study(
        **{"num_trials": space.budget.trials} | settings,
        name="",
        directory=Path(),
        space=space,
        store=store.path.resolve(),
        data_hash=store.info.content_hash,
    )
    return create_directory(study, storage)


def create_directory(study: Study, storage: Path | Folder) -> Study:
    """Create the directory of a study, named by its space and the time, with its study.json.

    Raises:
        ConfigError: it cannot be written.
    """
    stamp = time.time()
    while True:
        moment = time.strftime("%Y%m%d-%H%M%S", time.localtime(stamp))
        name = f"{plain_name(study.space.name)}-{moment}"
        directory, remote = study_place(storage, name)
        try:
            if remote and remote.names():
                raise FileExistsError(remote)
            directory.mkdir(parents=True)
            break
        except FileExistsError:
            stamp += 1  # two studies were created within one second
        except StorageError as error:
            raise ConfigError(f"--storage {error}") from error
        except OSError as error:
            raise ConfigError(
                f"--storage {storage}: cannot be written ({error.strerror}); choose another folder"
            ) from error
    study = replace(study, name=name, directory=directory, remote=str(remote or ""))
    write_study(study)
    return study


def study_place(storage: Path | Folder, name: str) -> tuple[Path, Folder | None]:
    """The directory of study `name` on this machine, and its address if it is mirrored."""
    if isinstance(storage, Path):
        return storage / name, None
    return (storage / name).here, storage / name


def write_study(study: Study) -> None:
    """Write <directory>/study.json atomically."""
    plain = asdict(study) | {
        "directory": None,
        "remote": "",
        "space": study.space.as_dict(),
        "space_name": study.space.name,
        "store": str(study.store),
    }
    write_whole(study.directory / "study.json", json.dumps(plain, indent=1))


def read_study(directory: Path, remote: str = "") -> Study:
    """The study that `write_study` wrote; its directory and its data may have moved.

    Args:
        directory: of the study.
        remote: the address that mirrors it, or "".

    Raises:
        ConfigError: there is no readable study.json, or this version does not know its space.
        DataError: the feature store is missing or its content changed since the study began, or a
            link in the directory points outside it.
    """
    path = directory / "study.json"
    check_links(directory)
    try:
        plain = json.loads(path.read_text("utf-8"))
        space = json.dumps({"policy": "simple"} | plain.pop("space"))  # of earlier versions
        space_name = plain.pop("space_name")
        settings = plain | {
            "directory": directory, "remote": remote, "store": Path(plain["store"]),
            "overrides": tuple(plain.get("overrides", ())),
            "warm_start": tuple(Earlier(**one) for one in plain.get("warm_start", ())),
        }  # fmt: skip
        study = Study(**settings, space=parse_space(space, name=space_name, source=str(path)))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; give the directory of a study, such as studies/<name>"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: damaged or of another version ({error}); restore it or start a new study"
        ) from error
    store = present(str(study.store), study.source, study.data_hash)
    return replace(study, store=store.resolve())


def latest_study(storage: Path | Folder, space_name: str) -> str:
    """Name of the newest study of a space, for --resume.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(storage, Path):
        names = [p.parent.name for p in storage.glob("*/study.json")]
    else:
        names = storage.names(below=False)
    stamp = re.compile(re.escape(plain_name(space_name)) + r"-\d{8}-\d{6}")
    found = sorted(name for name in names if stamp.fullmatch(name))
    if not found:
        raise ConfigError(f"--resume: {storage} holds no study of {space_name}")
    return found[-1]


def trial_config(
    study: Study, params: Mapping[str, Scalar], *, fold: int | None = None, seed: int | None = None
) -> TrialConfig:
    """One search trial.

    Args:
        study: the study it belongs to.
        params: the searched train parameters.
        fold: number of the selection fold of `num_folds`; None for one of `selection.val_fraction`.
        seed: of the run; None for the one of the study.
    """
    space = study.space
    return TrialConfig(
        method=space.method,
        store=str(study.store),
        train=space.resolve_train(params),
        decode=space.decode_defaults(),
        decode_domains=space.decode,
        decode_settings=space.selection.decode_settings,
        cross_fit=space.selection.cross_fit,
        seed=study.seed if seed is None else seed,
        report_steps=space.budget.report_steps,
        fit_on="fit",
        score_on="val",
        val_fraction=space.selection.val_fraction,
        fold_seed=space.selection.fold_seed,
        num_folds=0 if fold is None else study.num_folds,
        fold=fold or 0,
        precision=space.resources.precision,
        stages=_stages(study),
        metric="map" if space.selection.metric == "test" else space.selection.metric,
        select_on_test=space.selection.metric == "test",
        points=study.points,
    )


def _stages(study: Study) -> str:
    """The folder in which all studies of a storage share the results of earlier stages."""
    place = study.place if study.remote else Folder(str(study.directory.resolve()))
    return str(place.parent / ".stages")
