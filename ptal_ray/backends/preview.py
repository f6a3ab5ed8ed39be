"""The needs of a search: concurrent trials, disk space, different configurations."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ptal_ray.backends.ray.scratch import socket_folder
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.policy.optuna_searcher import grid
from ptal_ray.policy.race import gate_cells
from ptal_ray.process.words import counted
from ptal_ray.space.space import SearchSpace
from ptal_ray.space.untried import number_of_points
from ptal_ray.storage.place import kept
from ptal_ray.study.continuing import trials_begun
from ptal_ray.study.cross_validation import NOT_SEALED
from ptal_ray.study.duration import explained, spoken
from ptal_ray.study.feasibility import remarks
from ptal_ray.study.footprint import check_room, footprint, size
from ptal_ray.study.no_test_split import runs_after, runs_again
from ptal_ray.study.study import Study
from ptal_ray.study.view import StudyView
from ptal_ray.tracking.server import tracking_uri


def places(study: Study, args: argparse.Namespace) -> int | None:
    """Trials at a time; None if this depends on a cluster.

    Raises:
        ConfigError: not even one trial fits this machine.
    """
    from ptal_ray.backends.ray.cluster import local_nodes, trials_at_once  # Ray is slow to import

    if study.autoscale and args.address is None:
        raise ConfigError("--autoscale requires a cluster; pass --address")
    known = args.address is None or study.autoscale
    return trials_at_once(study, local_nodes()) if known else None


def room(study: Study, args: argparse.Namespace) -> tuple[int | None, dict[str, Any]]:
    """Trials at a time (None if this depends on a cluster) and the sizes of their files, JSON-able.

    Raises:
        ConfigError: not even one trial fits this machine, or the files do not fit the storage.
    """
    if args.address is None:
        socket_folder()  # checks what Ray could not use
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
    """The plan of a search, JSON-able.

    Raises:
        ConfigError: not even one trial fits this machine, or the files do not fit the storage.
    """
    space, info = study.space, FeatureStore.open(study.store).info
    here, files = room(study, args)
    return {
        "space": planned_space(study).as_dict(),
        "num_trials": study.num_trials,
        "plan": _plan(study),
        "time_budget_s": study.time_budget_s,
        "gpu_hours": study.gpu_hours,
        "protocol": study.protocol,
        "report_steps": list(space.budget.report_steps),
        "searcher": study.searcher,
        "scheduler": study.scheduler,
        "seed": study.seed,
        "warm_start": [one.study for one in study.warm_start],
        "concurrent_trials": here or f"what fits the cluster at {args.address}",
        "resources": space.as_dict()["resources"],
        "data": {
            "store": str(study.store),
            "name": info.name,
            "features": info.features,
            "note": info.note,
            "points": study.points,
        },
        "study": study.remote or str(study.directory),
        "storage": files,
        "mlflow": tracking_uri(),
        "reports": str(kept(args.out)),
    } | explained(study, here or study.max_concurrent or 1)


def planned_space(study: Study) -> SearchSpace:
    """The space of a study with the number of trials and the points that the flags set."""
    budget = replace(study.space.budget, trials=study.num_trials)
    return replace(study.space, budget=budget, points=study.points)


def begun_note(study: Study) -> list[str]:
    """What has been done of a study that is resumed, which its plan does not tell; often empty."""
    if not study.events.exists():
        return []
    view = StudyView.read(study.directory)
    if view.end and view.end.state == "done" and not view.end.message:
        done = "has ended; --resume runs nothing more, and writes its report again"
    else:
        done = f"has started {counted(len(view.trials), 'trial')}; --resume runs only what is left"
    return [f"{study.name} {done}. The plan and its time are those of the whole study"]


def announced(study: Study) -> str:
    """What a search is going to do, one line: its budget, its trials and its final runs."""
    budget, most = study.num_trials, ""
    if study.space.policy == "race":
        most = f"about {counted(budget, 'trial')}"
        most += ", more if some stop early; " if study.scheduler == "asha" else "; "
    limits = "".join([
        f", at most {spoken(study.time_budget_s)} for the trials" if study.time_budget_s else "",
        f", at most {study.gpu_hours:g} GPU hours for the trials" if study.gpu_hours else "",
    ])  # fmt: skip
    return f"plan    {counted(budget, 'full run')}{limits}: {most}{_plan(study)}"


def _plan(study: Study) -> str:
    """One line about the use of the trials and the runs after them."""
    final = study.space.final
    has_test = bool(FeatureStore.open(study.store).ids("test"))
    after, _ = runs_after(study.space, has_test)
    last = f"then {final.seeds} to {after} test runs on the whole training split"
    if not has_test:
        last = f"then one run on all videos; {NOT_SEALED}"
        if study.space.policy == "simple":
            last = f"then the best and the defaults on {study.num_folds} folds, {last}"
    if study.space.policy == "simple":
        top = runs_again(study.space, study.num_trials) // final.seeds
        again = f"then the best {top} with {final.seeds} seeds, " if top else ""
        return f"every configuration is trained on one fold, {again}{last}"
    cells = gate_cells(study.num_trials)
    return (
        f"race over {study.num_folds} folds: many configurations on one fold, the better ones on "
        f"more; the best one and the defaults are compared in {cells} new runs each, with other "
        f"seeds; {last}"
    )


def distinct(study: Study) -> tuple[Study, list[str]]:
    """The study with at most as many trials as different configurations, and notes about this.

    Raises:
        ConfigError: --searcher grid with more combinations than trials.
    """
    space, asked = study.space, study.num_trials
    if space.policy == "race":  # which trains one configuration on several folds
        return study, remarks(study, asked)
    gridded = study.searcher == "grid"
    points = len(grid(study)) if gridded else number_of_points(space.train)
    if points is not None and points < asked:
        study = replace(study, num_trials=max(points, min(asked, trials_begun(study))))
    return study, remarks(study, asked)
