"""One trial without Ray: its configuration, its folder and its printed lines."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from ptal_ray.data.datasets import find
from ptal_ray.data.drawn_points import drawn_points
from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError
from ptal_ray.space.space import SearchSpace, load_space
from ptal_ray.storage.ownership import begins_with, check_files, check_writable, read_object
from ptal_ray.storage.whole import folder_made, write_whole
from ptal_ray.study.ensemble_file import ENSEMBLE_FILE
from ptal_ray.study.events import dumps
from ptal_ray.study.feasibility import demand, run_problems
from ptal_ray.study.run_folder import MODEL
from ptal_ray.study.study import Study, trial_config
from ptal_ray.training.config import TrialConfig, TrialReport
from ptal_ray.training.device import run_device
from ptal_ray.training.label_quality import label_quality
from ptal_ray.training.stages import Watch, start, unwatched
from ptal_ray.training.trial import Trial
from ptal_ray.training.whole_split import on_whole_split

MEMBERS = "members"  # a key that only the report of an ensemble has


def run(args: argparse.Namespace, watch: Watch = unwatched) -> TrialReport:
    """Train the run described by the flags of `python -m ptal_ray.train`; returns its last report.

    Args:
        args: the flags.
        watch: a context manager that shows the progress of a trial, or of an earlier stage of it,
            towards a step.

    Raises:
        ConfigError: a flag or a YAML value is wrong, or the run is complete.
        DataError: the dataset is not imported, or the run is not possible with it.
    """
    use_threads(args.threads)
    config = configured(args, load_space(args.space, args.set, dataset=args.dataset))
    demand(run_problems(config, FeatureStore.open(config.store)))
    if not args.resume:
        check_out(args.out)
    with out_folder(args.out):
        trial = start(config, run_device(args.device), watch=watch)
        if args.resume:
            trial.load(args.out / "checkpoint.pt")
            if trial.done:
                raise ConfigError(f"--resume: {args.out} is complete at step {trial.step}")
        with watch(trial, config.report_steps[-1], ""):
            return train(trial, args.out, quiet=args.json, judge_labels=args.label_quality)


def use_threads(number: int) -> None:
    """Set the CPU threads of torch.

    Raises:
        ConfigError: it is not a valid number of threads.
    """
    if number < 1:
        raise ConfigError(f"--threads {number}: allowed is 1 or more")
    torch.set_num_threads(number)


def configured(args: argparse.Namespace, space: SearchSpace) -> TrialConfig:
    """The configuration described by the flags, in a space.

    Raises:
        ConfigError: a flag is wrong.
        DataError: the dataset is not imported.
    """
    config = one_trial(space, args.seed, args.points)
    last = config.report_steps[-1]
    if args.test or args.whole:
        config = dataclasses.replace(
            config, decode_domains={}, score_on="test" if args.test else "none"
        )
        config = on_whole_split(config, FeatureStore.open(Path(config.store)))
    elif args.reports is not None:
        if not 1 <= args.reports <= last:
            raise ConfigError(f"--reports {args.reports}: allowed are 1 to {last}, the last step")
        steps = tuple(last * k // args.reports for k in range(1, args.reports + 1))
        config = dataclasses.replace(config, report_steps=steps)
    return config


def one_trial(space: SearchSpace, seed: int, points: str | None = None) -> TrialConfig:
    """A full trial with the fixed values of `space` and the method's defaults for the rest.

    Args:
        space: the search space.
        seed: of the run.
        points: how its points are drawn; "" or None: as the space says, else those stored.

    Raises:
        ConfigError: this kind of points does not exist.
        DataError: the dataset is not imported.
    """
    store = find(space.dataset)
    study = Study(
        name=space.name,
        directory=Path("studies") / space.name,
        space=space,
        store=store.path.resolve(),
        data_hash=store.info.content_hash,
        num_trials=1,
        seed=seed,
        points=drawn_points(points).text if points else space.points,
    )
    return trial_config(study, {})


def train(trial: Trial, out: Path, *, quiet: bool, judge_labels: bool = False) -> TrialReport:
    """Run `trial` to its end, with a checkpoint in `out`; returns the last report.

    With `judge_labels` the mAP of the pseudo-labels is measured at the start and at every report,
    and written to `out/label_quality.jsonl`.
    """
    checkpoint = out / "checkpoint.pt"
    if judge_labels and trial.step == 0:
        (out / "label_quality.jsonl").unlink(missing_ok=True)
        _judge_labels(trial, out, quiet)
    while True:
        report = trial.advance()
        said = dataclasses.asdict(report) | {"annotated": trial.task.annotated}
        (out / MODEL).unlink(missing_ok=True)  # of an earlier run; this one has no model yet
        write_whole(out / "report.json", dumps(said, indent=1))  # tells the writing command
        write_detections(out / "detections.json", trial.detections, trial.task.store.info.classes)
        if trial.done:
            trial.save_model(out / MODEL, report.decode)
        trial.save(checkpoint)
        if not quiet:
            loss = f"loss {report.metrics['train/loss_total']:7.4f}"
            on = trial.task.config.score_on
            what = "" if on == "none" else map_line(report.metrics, f"{on}/")
            print(f"step {report.step:6d}  {loss}  {what}  {report.seconds:.1f} s", flush=True)
        if judge_labels:
            _judge_labels(trial, out, quiet)
        if trial.done:
            return report


def check_out(out: Path) -> None:
    """Check that a run can write its files to `out`: it has none, or only those of a run.

    Raises:
        ConfigError: there are other files.
    """
    said = read_object(out / "report.json").keys()
    if {"step", "objective", "annotated"} <= said and MEMBERS not in said:
        return
    judged = {"label_quality.jsonl": lambda path: begins_with(path, '{"step": 0')}
    others = dict.fromkeys(
        ("report.json", "detections.json", "checkpoint.pt", MODEL, ENSEMBLE_FILE),
        lambda path: False,
    )
    check_files("--out", out, judged | others)


@contextmanager
def out_folder(out: Path) -> Iterator[None]:
    """The folder of a run, created if missing.

    Raises:
        ConfigError: it cannot be created, or cannot be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_made(out))
        except OSError as error:
            raise ConfigError(f"--out {out}: not a folder to write to ({error})") from error
        check_writable("--out", out, folder=True)
        yield


def _judge_labels(trial: Trial, out: Path, quiet: bool) -> None:
    metrics = label_quality(trial.task, trial.learner.model, trial.batches.split, trial.made_labels)
    with (out / "label_quality.jsonl").open("a", encoding="utf-8") as file:
        print(json.dumps({"step": trial.step, **metrics}), file=file)
    if metrics and not quiet:
        print(f"step {trial.step:6d}  pseudo-labels  {map_line(metrics, '')}", flush=True)


def map_line(metrics: Mapping[str, float], prefix: str) -> str:
    """The average and each threshold of the metrics under `prefix`, or the hits of points."""
    if f"{prefix}hit_mAP" in metrics:
        hits, score = metrics[f"{prefix}hit_mAP"], metrics[f"{prefix}points_score"]
        return f"{prefix.rstrip('/')} pure-hit mAP {hits:.4f}  points score {score:.4f}"
    thresholds = "  ".join(
        f"@{name.rsplit('_', 1)[1]} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith(f"{prefix}mAP_0")
    )
    number = metrics.get(f"{prefix}num_videos")
    of = "" if number is None else f"  of {number:.0f} videos"
    return f"{prefix.rstrip('/')} mAP {metrics[f'{prefix}mAP_avg']:.4f}  {thresholds}{of}".lstrip()
