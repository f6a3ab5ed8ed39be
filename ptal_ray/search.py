"""Searches the hyperparameters of a method on a dataset, and benchmarks what it found.

    python -m ptal_ray.search apn_watch
    python -m ptal_ray.search apn_gtea --num-trials 50 --time-budget 30m
    python -m ptal_ray.search --resume studies/apn_gtea-20260801-120000

Trials run under Ray. The best configuration and the defaults are then trained on the whole
training split with several seeds, and the test split is read once. Everything is written to a study
directory, to MLflow and to a report. Ctrl-C stops cleanly, a second one at once.
"""

from __future__ import annotations

from ptal_ray.process.interruption import INTERRUPTED, interruptible

# isort: split
import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptal_ray.backends.ray.address import given_address
from ptal_ray.backends.ray.scratch import socket_folder
from ptal_ray.backends.session import Signals, run_session, tracking_uri
from ptal_ray.benchmarks.duration import explained, readable
from ptal_ray.data.datasets import find, origin
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DataError, PtalError, StorageError, full_storage_named
from ptal_ray.policy.optuna_searcher import grid
from ptal_ray.process.console import run_main
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.reporting.progress import make_progress
from ptal_ray.search_flags import parse
from ptal_ray.space.space import load_space
from ptal_ray.space.untried import number_of_points
from ptal_ray.storage.place import kept, make_results_root, plain_name, results_root
from ptal_ray.storage.remote import Remote, is_remote
from ptal_ray.study.continuing import (
    check_flags,
    check_space,
    check_storage,
    check_trials,
    overrides,
    trials_begun,
)
from ptal_ray.study.feasibility import demand, problems, remarks
from ptal_ray.study.footprint import check_room, footprint, size
from ptal_ray.study.mirror import check_out
from ptal_ray.study.study import (
    SCHEDULERS,
    SEARCHERS,
    Study,
    create_study,
    latest_study,
    read_study,
    study_place,
)

_SETTINGS = (
    "num_trials", "time_budget_s", "searcher", "scheduler", "max_concurrent", "autoscale", "seed",
    "keep_checkpoints", "source", "overrides",
)  # fmt: skip


def planned(args: argparse.Namespace) -> tuple[Study, FeatureStore]:
    """The new study that the flags ask for, not yet on disk, and its data.

    Raises:
        ConfigError: the space or a flag is wrong.
        DataError: the dataset is missing or lacks a split.
    """
    space = load_space(args.space, args.set, args.dataset)
    store = find(space.dataset)
    settings = {
        "num_trials": space.budget.trials if args.num_trials is None else args.num_trials,
        "time_budget_s": args.time_budget,
        "searcher": args.searcher or SEARCHERS[0],
        "scheduler": args.scheduler or SCHEDULERS[0],
        "max_concurrent": args.max_concurrent,
        "autoscale": bool(args.autoscale),
        "seed": args.seed or 0,
        "keep_checkpoints": args.keep_checkpoints,
        "source": origin(space.dataset),
        "overrides": overrides(args.set, args.dataset),
    }
    name = f"{plain_name(space.name)}-<time>"
    directory, remote = study_place(storage(args), name)
    study = Study(
        name=name,
        directory=directory,
        remote=str(remote or ""),
        space=space,
        store=store.path.resolve(),
        data_hash=store.info.content_hash,
        **settings,
    )
    places(study, args)
    demand(problems(study, store))
    return study, store


def resumed(args: argparse.Namespace) -> Study:
    """The study to continue, with the flags that may change.

    Raises:
        ConfigError: there is none, or a flag would make it another study.
        DataError: its data changed.
    """
    check_flags(args)
    study = _found(args)
    check_storage(study, args.storage, storage(args))
    check_trials(study, args.num_trials)
    changes = {
        "num_trials": args.num_trials,
        "time_budget_s": args.time_budget,
        "max_concurrent": args.max_concurrent,
        "autoscale": args.autoscale,
        "keep_checkpoints": args.keep_checkpoints,
    }
    study = replace(study, **{k: v for k, v in changes.items() if v is not None})
    demand(problems(study, FeatureStore.open(study.store), values=False))
    return study


def _found(args: argparse.Namespace) -> Study:
    """The study that --resume names, by address, directory or name, or the newest of a space."""
    given = args.resume or latest_study(storage(args), Path(args.space).stem)
    by_name = "/" not in given and not (args.resume and kept(Path(given)).is_dir())
    directory, remote = study_place(storage(args), given) if by_name else (Path(given), None)
    if is_remote(given):
        remote = Remote.parse(given)
    if remote is None:
        return read_study(kept(directory))
    try:
        return read_study(check_out(remote), str(remote))
    except StorageError as error:
        raise ConfigError(f"--resume: {error}") from error


def storage(args: argparse.Namespace) -> Path | Remote:
    """Where studies lie.

    Raises:
        ConfigError: no address.
    """
    if is_remote(args.storage):
        return Remote.parse(args.storage)
    return kept(Path(args.storage))


def places(study: Study, args: argparse.Namespace) -> int | None:
    """Trials at a time, None where only the cluster knows.

    Raises:
        ConfigError: not even one trial fits this machine, which does not grow.
    """
    from ptal_ray.backends.ray.cluster import local_nodes, trials_at_once  # Ray is slow to import

    if study.autoscale and args.address is None:
        raise ConfigError("--autoscale: this machine does not grow; give --address of a cluster")
    known = args.address is None or study.autoscale
    return trials_at_once(study, local_nodes()) if known else None


def room(study: Study, args: argparse.Namespace) -> tuple[int | None, dict[str, Any]]:
    """Trials at a time, None where only the cluster knows, and what their files take, JSON-able.

    Raises:
        ConfigError: not even one trial fits this machine, which does not grow, or the files do not
            fit the storage.
    """
    if args.address is None:
        socket_folder()  # says what Ray could not use
    here = places(study, args)
    concurrent = min(here or study.max_concurrent or 1, study.num_trials)
    need = footprint(study, FeatureStore.open(study.store), concurrent)
    free = None if study.remote else check_room(need, study.directory)
    left = f"; {size(free)} are free" if free is not None else ""
    return here, {
        "text": f"{need}, for {concurrent} trials at a time{left}",
        "most_bytes": need.most,
        "checkpoint_bytes": need.checkpoint,
        "scores_bytes": need.scores,
        "free_bytes": free,
    }


def dry_run(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    """What a search would do, JSON-able.

    Raises:
        ConfigError: not even one trial fits this machine, or the files do not fit the storage.
    """
    space, info = study.space, FeatureStore.open(study.store).info
    here, files = room(study, args)
    return {
        "space": space.as_dict(),
        "num_trials": study.num_trials,
        "time_budget_s": study.time_budget_s,
        "report_steps": list(space.budget.report_steps),
        "searcher": study.searcher,
        "scheduler": study.scheduler,
        "seed": study.seed,
        "concurrent_trials": here or f"what fits the cluster at {args.address}",
        "resources": space.as_dict()["resources"],
        "data": {
            "store": str(study.store),
            "name": info.name,
            "features": info.features,
            "note": info.note,
        },
        "study": study.remote or str(study.directory),
        "storage": files,
        "mlflow": tracking_uri(),
        "reports": str(kept(args.reports)),
    } | explained(study, here or study.max_concurrent or 1)


def distinct(study: Study) -> tuple[Study, list[str]]:
    """The study with no more trials than it has different configurations, and what to note of it.

    Raises:
        ConfigError: --searcher grid with more combinations than trials.
    """
    space, asked = study.space, study.num_trials
    gridded = study.searcher == "grid"
    points = len(grid(study)) if gridded else number_of_points(space.train)
    if points is not None and points < asked:
        study = replace(study, num_trials=max(points, min(asked, trials_begun(study))))
    return study, remarks(study, asked)


def resume_command(study: Study, args: argparse.Namespace) -> str:
    """What continues an interrupted study; "" where nothing of it was started."""
    if not study.directory.exists():
        return ""
    here = results_root() == Path.cwd()
    directory = os.path.relpath(study.directory) if here else str(study.directory)
    words = ["python", "-m", "ptal_ray.search", "--resume", study.remote or directory]
    if args.reports != Path("reports"):
        words += ["--reports", str(args.reports)]
    if args.address and args.address != os.environ.get("RAY_ADDRESS"):
        words += ["--address", args.address]
    return shlex.join(words)


def _check_place(flag: str, folder: Path) -> None:
    """Finds out before a search what would end it: the folder cannot be made or written.

    Raises:
        ConfigError: so it is.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"{flag} {folder}: {there} is no folder to write in; choose another")


def _report(study: Study, reports: Path) -> Path:
    from ptal_ray.report import write_report  # plotting is slow to import

    return write_report(study.directory, reports)


def _check_report(study: Study, reports: Path) -> None:
    """Finds out before the work whether the report of a resumed study has its place.

    Raises:
        DataError: something else lies there.
    """
    from ptal_ray.report import check_report  # plotting is slow to import

    check_report(study.directory, reports)


def search(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Does what the flags say; returns what --json prints.

    Raises:
        PtalError: it could not, or no trial finished.
        KeyboardInterrupt: it was interrupted and has stopped cleanly; its argument is the command
            that continues.
    """
    args.address = given_address(args.address)
    notes = []
    if args.resume is not None:
        study = resumed(args)
        if args.space is not None:
            notes = check_space(study, args.space, resume_command(study, args))
    else:
        study, store = planned(args)
    study, more = distinct(study)
    notes += more
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.dry_run:
        plan = dry_run(study, args) | {"notes": notes}
        say(study.space.to_yaml())
        shown = plan | {"storage": plan["storage"]["text"]} | readable(plan)
        say("\n".join(f"{k:<18}{v}" for k, v in shown.items() if k not in ("space", "notes")))
        return plan
    room(study, args)
    make_results_root()
    _check_place("--reports", kept(args.reports))
    if study.events.exists():
        _check_report(study, kept(args.reports))
    try:
        with ExitStack() as stack:
            signals = stack.enter_context(Signals())
            if args.resume is None:
                settings = {name: getattr(study, name) for name in _SETTINGS}
                study = create_study(study.space, store, storage(args), **settings)
            progress = stack.enter_context(make_progress(study, args.quiet, args.json))
            report, unlogged = run_session(
                study,
                created=args.resume is None,
                address=args.address,
                verbose=args.verbose,
                signals=signals,
                listen=progress.event,
                say=progress.say,
                report=lambda: _report(study, kept(args.reports)),
            )
    except (KeyboardInterrupt, BrokenPipeError) as error:  # the second: nobody reads its lines
        raise KeyboardInterrupt(resume_command(study, args)) from error
    except StorageError as error:
        raise StorageError(f"{error}: {resume_command(study, args)}") from error
    except DataError as error:
        then = resume_command(study, args)
        raise DataError(f"{error}; once it is as it was, continue with: {then}") from error
    outcome = summary(study, report, unlogged)
    say(show_summary(outcome))
    return outcome


@interruptible
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parse(argv, __doc__)

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout)

    try:
        with full_storage_named(Path(args.storage)):
            outcome, code = search(args, say), 0
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        outcome, code = {"error": str(error), "exit_code": error.exit_code}, error.exit_code
    except KeyboardInterrupt as error:
        command = str(error)
        what = f"continue with\n  {command}" if command else "nothing was started"
        print(f"interrupted; {what}", file=sys.stderr)
        outcome, code = {"state": "interrupted", "resume": command}, INTERRUPTED
    if args.json:
        print(json.dumps(outcome))
    return code


if __name__ == "__main__":
    run_main(main)
