"""Trains an ensemble without Ray: its members one after the other, then their average."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.space.members import ENSEMBLE, Member
from ptal_ray.space.space import SearchSpace, load_space
from ptal_ray.storage.ownership import check_files, read_object
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.ensemble_file import ENSEMBLE_FILE, MemberModel, write_ensemble
from ptal_ray.study.events import dumps
from ptal_ray.study.feasibility import demand, run_problems
from ptal_ray.study.run_folder import CHECKPOINT, DETECTIONS, MODEL, REPORT
from ptal_ray.study.single_run import (
    MEMBERS,
    check_out,
    configured,
    map_line,
    out_folder,
    train,
    use_threads,
)
from ptal_ray.training.averaging import averaged
from ptal_ray.training.config import TrialConfig, TrialReport
from ptal_ray.training.device import run_device
from ptal_ray.training.scoring import best_decoding
from ptal_ray.training.stages import Watch, start, unwatched
from ptal_ray.training.task import Task

_LENGTHS = ("resample_to", "resampling")  # that determine the lengths of scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trained:
    """A trained member, with its steps, its seconds and the scores of the videos to score."""

    task: Task
    step: int
    seconds: float
    scores: list[Scores]


def run_ensemble(args: argparse.Namespace, watch: Watch = unwatched) -> TrialReport:
    """Train the members in a space, average their scores, and return the report of the average.

    Args:
        args: the flags of `python -m ptal_ray.train`.
        watch: as for `single_run.run`.

    Raises:
        ConfigError: a flag or a YAML value is wrong, or the space names no members.
        DataError: the dataset is not imported, or members cannot be trained on it or averaged.
    """
    use_threads(args.threads)
    space = load_space(args.space, args.set, dataset=args.dataset)
    configs = _configs(args, space)
    folders = [args.out / f"member{k + 1}" for k in range(len(configs))]
    _check_outs(args, folders)
    device, done = run_device(args.device), []
    with out_folder(args.out):
        (args.out / ENSEMBLE_FILE).unlink(missing_ok=True)
        for member, config, folder in zip(space.ensemble, configs, folders, strict=True):
            if not args.json:
                print(f"{folder.name} of {len(configs)}, counts {member.times} x", flush=True)
            done.append(_trained(args, config, folder, device, watch))
        report = _averaged(args, space.ensemble, done)
        models = [
            MemberModel(model=folder / MODEL, times=member.times)
            for member, folder in zip(space.ensemble, folders, strict=True)
        ]
        write_ensemble(args.out, models)
    return report


def _configs(args: argparse.Namespace, space: SearchSpace) -> list[TrialConfig]:
    """The configuration of each member; all have the same seed and decode parameters.

    Raises:
        ConfigError: there are no members, or they cannot be averaged or evaluated.
        DataError: a member cannot be trained on this data.
    """
    if not space.ensemble:
        raise ConfigError(
            f"--ensemble: {args.space} has no section {ENSEMBLE}:, which names the members; the "
            "best.yaml of a report has one if averaging passed its test; train without --ensemble"
        )
    if space.selection.metric != "map":
        raise ConfigError(
            f"--ensemble: is judged by mAP; selection.metric is {space.selection.metric}; add "
            "--set selection.metric=map"
        )
    made = [configured(args, space.freeze(member.train, {})) for member in space.ensemble]
    configs = [dataclasses.replace(config, decode_domains={}) for config in made]
    for name in _LENGTHS:
        values = [config.train[name] for config in configs]
        if len(set(values)) > 1:
            raise ConfigError(
                f"{args.space}: {ENSEMBLE}: train.{name} of members is {values[0]} and "
                f"{next(v for v in values if v != values[0])}; averaged scores need one length; "
                "give all members the same value"
            )
    for config in configs:
        demand(run_problems(config, FeatureStore.open(config.store)))
    return configs


def _check_outs(args: argparse.Namespace, folders: Sequence[Path]) -> None:
    """Check that an ensemble can be written to --out: it has no files, or those of an ensemble,
    with --resume of an incomplete one.

    Raises:
        ConfigError: there are other files (also those of a single run), or the ensemble is
            complete.
    """
    ours = MEMBERS in read_object(args.out / REPORT)
    own = dict.fromkeys((REPORT, DETECTIONS, ENSEMBLE_FILE), lambda path: ours)
    others = dict.fromkeys((CHECKPOINT, MODEL), lambda path: False)
    check_files("--out", args.out, own | others)
    if not args.resume:
        for folder in folders:
            check_out(folder)
    elif (args.out / ENSEMBLE_FILE).exists():
        raise ConfigError(f"--resume: {args.out} is complete")
    elif not (folders[0] / CHECKPOINT).exists():
        raise ConfigError(f"--resume: {folders[0]} has no {CHECKPOINT}; leave out --resume")


def _trained(
    args: argparse.Namespace, config: TrialConfig, folder: Path, device: str, watch: Watch
) -> _Trained:
    """Train a member, or the rest of it after an interruption.

    The member is not evaluated: only the average is compared with annotations.
    """
    task = Task.of(config)
    with out_folder(folder):
        trial = start(dataclasses.replace(config, score_on="none"), device, watch=watch)
        if args.resume and (folder / CHECKPOINT).exists():
            trial.load(folder / CHECKPOINT)
        if not trial.done:
            with watch(trial, config.report_steps[-1], ""):
                train(trial, folder, quiet=args.json, judge_labels=args.label_quality)
    scores = trial.score(task.score_ids)
    return _Trained(task=task, step=trial.step, seconds=trial.seconds, scores=scores)


def _averaged(
    args: argparse.Namespace, members: Sequence[Member], done: Sequence[_Trained]
) -> TrialReport:
    """Average, decode and evaluate the scores, and write detections and report.

    Raises:
        DataError: the scores cannot be averaged.
    """
    task, times = done[0].task, [member.times for member in members]
    counted = [own.scores for own, n in zip(done, times, strict=True) for _ in range(n)]
    try:
        scores = averaged(counted)
    except ValueError as error:
        raise DataError(f"{args.space}: {ENSEMBLE}: cannot be averaged: {error}") from error
    result = best_decoding(task, scores, lambda: math.nan)
    on, metrics = task.config.score_on, dict(result.metrics)
    if task.score_ids:
        metrics["num_videos"] = float(len(task.score_ids))
    report = TrialReport(
        step=max(own.step for own in done),
        objective=result.objective,
        metrics={f"{on}/{name}": value for name, value in metrics.items()},
        decode=dataclasses.asdict(result.params),
        seconds=sum(own.seconds for own in done),
    )
    said = dataclasses.asdict(report) | {"annotated": task.annotated, MEMBERS: times}
    write_whole(args.out / REPORT, dumps(said, indent=1))
    write_detections(args.out / DETECTIONS, result.detections, task.store.info.classes)
    if not args.json and task.score_ids:
        print(f"ensemble  {map_line(report.metrics, f'{on}/')}", flush=True)
    return report
