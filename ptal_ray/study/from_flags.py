"""The study that the flags of a search describe: a new one or an existing one."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import replace
from pathlib import Path

from ptal_ray.data.datasets import find, origin
from ptal_ray.data.drawn_points import drawn_points
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, StorageError
from ptal_ray.space.space import SearchSpace, load_space
from ptal_ray.storage.folder import Folder
from ptal_ray.storage.place import kept, plain_name, results_root
from ptal_ray.study.choices import PAPER_COMPAT, PROTOCOLS, SCHEDULERS, SEARCHERS
from ptal_ray.study.continuing import check_flags, check_storage, check_trials, overrides
from ptal_ray.study.feasibility import demand, problems
from ptal_ray.study.mirror import check_out
from ptal_ray.study.study import Study, latest_study, read_study, study_place
from ptal_ray.study.warm_start import earlier_configurations


def planned(args: argparse.Namespace) -> tuple[Study, FeatureStore, list[str]]:
    """The new study that the flags describe (not yet on disk), its data, and lines to print.

    Raises:
        ConfigError: the space or a flag is wrong.
        DataError: the dataset is missing or lacks a split.
    """
    space = load_space(args.space, args.set, args.dataset)
    if args.policy:
        space = replace(space, policy=args.policy)
    elif args.protocol == PAPER_COMPAT:
        space = replace(space, policy="simple")
    _check_gpu_hours(args, space)
    if args.warm_start and args.searcher == "grid":
        raise ConfigError(
            "--warm-start cannot be combined with --searcher grid; remove one of them"
        )
    place = storage(args)
    known, notes = earlier_configurations(
        args.warm_start, space, place if isinstance(place, Path) else None
    )
    store = find(space.dataset)
    settings = {
        "num_trials": space.budget.trials if args.num_trials is None else args.num_trials,
        "time_budget_s": args.time_budget,
        "gpu_hours": args.gpu_hours,
        "searcher": args.searcher or SEARCHERS[0],
        "scheduler": args.scheduler or SCHEDULERS[0],
        "max_concurrent": args.max_concurrent,
        "autoscale": bool(args.autoscale),
        "seed": args.seed or 0,
        "points": drawn_points(args.points).text if args.points else space.points,
        "keep_checkpoints": args.keep_checkpoints,
        "source": origin(space.dataset),
        "protocol": args.protocol or PROTOCOLS[0],
        "overrides": overrides(args.set, args.dataset),
        "warm_start": known,
    }
    name = f"{plain_name(space.name)}-<time>"
    directory, remote = study_place(place, name)
    study = Study(
        name=name,
        directory=directory,
        remote=str(remote or ""),
        space=space,
        store=store.path.resolve(),
        data_hash=store.info.content_hash,
        **settings,
    )
    return study, store, notes


def resumed(args: argparse.Namespace) -> Study:
    """The study to continue, with the flags that may differ from its first start.

    Raises:
        ConfigError: there is no such study, or a flag must not change.
        DataError: its data changed.
    """
    check_flags(args)
    study = _found(args)
    _check_gpu_hours(args, study.space)
    check_storage(study, args.storage, storage(args))
    check_trials(study, args.num_trials)
    changes = {
        "num_trials": args.num_trials,
        "time_budget_s": args.time_budget,
        "gpu_hours": args.gpu_hours,
        "max_concurrent": args.max_concurrent,
        "autoscale": args.autoscale,
        "keep_checkpoints": args.keep_checkpoints,
    }
    study = replace(study, **{k: v for k, v in changes.items() if v is not None})
    demand(problems(study, FeatureStore.open(study.store), values=False))
    return study


def _check_gpu_hours(args: argparse.Namespace, space: SearchSpace) -> None:
    """Check that the trials that --gpu-hours limits use a GPU.

    Raises:
        ConfigError: they do not.
    """
    if args.gpu_hours is not None and not space.resources.gpus_per_worker:
        raise ConfigError(
            "--gpu-hours: trials of this space use no GPU (resources.gpus_per_worker is 0); use "
            "--time-budget"
        )


def _found(args: argparse.Namespace) -> Study:
    """The study that --resume names, by address, directory or name, or the newest of a space."""
    given = args.resume or latest_study(storage(args), Path(args.space).stem)
    by_name = "/" not in given and not (args.resume and kept(Path(given)).is_dir())
    directory, remote = study_place(storage(args), given) if by_name else (Path(given), None)
    if (place := Folder.parse(given)).remote:
        remote = place
    if remote is None:
        return read_study(kept(directory))
    try:
        return read_study(check_out(remote), str(remote))
    except StorageError as error:
        raise ConfigError(f"--resume: {error}") from error


def storage(args: argparse.Namespace) -> Path | Folder:
    """The folder or address of the studies.

    Raises:
        ConfigError: --storage is not a valid address.
    """
    place = Folder.parse(args.storage)
    return place if place.remote else kept(Path(args.storage))


def resume_command(study: Study, args: argparse.Namespace) -> str:
    """The command that continues an interrupted study; "" if no run was started."""
    if not study.directory.exists():
        return ""
    here = results_root() == Path.cwd()
    directory = os.path.relpath(study.directory) if here else str(study.directory)
    words = ["python", "-m", "ptal_ray.search", "--resume", study.remote or directory]
    if args.out != Path("reports"):
        words += ["--out", str(args.out)]
    if args.address and args.address != os.environ.get("RAY_ADDRESS"):
        words += ["--address", args.address]
    return shlex.join(words)
