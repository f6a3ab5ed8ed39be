"""Times of the parts of a method, of evaluation, of suppression and of tracking."""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.benchmarks import random_predictions
from ptal_ray.benchmarks.flags import OTHERS
from ptal_ray.benchmarks.step_times import median_ms, operators, warm
from ptal_ray.benchmarks.workload import Sizes, workload
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import names
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.nms import batched_nms
from ptal_ray.space.domain import Scalar
from ptal_ray.space.space import parse_space
from ptal_ray.training.device import run_device
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements of `python -m ptal_ray.profile` for its flags, JSON-able.

    Raises:
        ConfigError: the target is unknown.
    """
    torch.set_num_threads(args.threads)
    if args.target == "evaluation":
        return profile_evaluation(args.repeats)
    if args.target == "suppression":
        return profile_suppression(args.repeats)
    if args.target == "tracking":
        return profile_tracking(args)
    if args.target == "logging":
        from ptal_ray.benchmarks.logging_cost import profile_logging

        return profile_logging(args.trials, args.concurrent, args.policy, args.repeats)
    if args.target == "driver":
        if args.without_ray:
            from ptal_ray.benchmarks.without_ray import profile_conductor

            return profile_conductor(args.trials, args.concurrent, args.policy)
        from ptal_ray.benchmarks.driver import profile_driver  # only this one starts Ray

        return profile_driver(args.trials, args.concurrent, args.policy)
    if args.target not in names():
        known = ", ".join([*names(), *OTHERS])
        raise ConfigError(f"profile: target {args.target!r} is unknown; known are {known}")
    return profile_method(args)


def profile_method(args: argparse.Namespace) -> dict[str, Any]:
    """Time the parts of a training step, scoring and decoding of `args.target`.

    Raises:
        ConfigError: a value of --set is wrong, or the device is not available.
    """
    device = run_device(args.device)
    sizes = Sizes(
        dim=args.dim, classes=args.classes, points=args.points, snippets=args.snippets,
        batch=args.batch,
    )  # fmt: skip
    given = _given(args.target, args.set)
    with tempfile.TemporaryDirectory() as folder:
        config = workload(Path(folder), args.target, sizes, precision=args.precision, train=given)
        return _time_trial(start(config, device), args.repeats)


def _time_trial(trial: Trial, repeats: int) -> dict[str, Any]:
    device = trial.worker.device
    warm(trial)
    rows = trial.batches.plan.rows(trial.step)
    videos, scored = len(rows), len(trial.task.score_ids)
    timings = {"step, no refresh due": median_ms(trial.train_step, repeats, device)}
    if trial.task.method.refresh is not None:
        timings["refresh of a batch"] = median_ms(
            lambda: trial.refresh(rows, np.ones(videos, bool)), repeats, device
        )
    batch = trial.batches.training(trial.step, rows)
    timings["batch assembly"] = median_ms(
        lambda: trial.batches.training(trial.step, rows), repeats, device
    )
    timings["scores of the test videos"] = median_ms(
        lambda: trial.score(trial.task.score_ids), max(1, repeats // 3), device
    )
    scores = trial.score(trial.task.score_ids)
    hp = trial.task.method.decode_params()
    grid = trial.batches.split.grids[0]
    timings["decode of a video"] = median_ms(
        lambda: trial.task.method.decode(
            scores[0], grid, trial.task.store.duration_s(scores[0].id), hp
        ),
        repeats,
        device,
    )
    timings["loss forward"] = median_ms(
        lambda: trial.learner.objective(batch, trial.step_context()), repeats, device
    )
    result: dict[str, Any] = {
        "ms": timings,
        "videos per batch": videos,
        "test videos": scored,
        "steps per second": 1e3 / timings["step, no refresh due"]["median"],
        "operators": operators(trial),
    }
    if trial.task.method.refresh is not None:
        result["refresh ms per video"] = timings["refresh of a batch"]["median"] / videos
    if device.type == "cuda":
        result["peak device MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
    result["peak resident MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return result


def profile_evaluation(repeats: int) -> dict[str, Any]:
    """Time detection mAP at the sizes of ActivityNet 1.3 and THUMOS14, on one thread."""
    cases = {
        "anet-like": random_predictions.anet_like(0),
        "thumos-like": random_predictions.thumos_like(0),
    }
    cpu = torch.device("cpu")
    return {
        "ms": {
            name: median_ms(partial(detection_map, *case), repeats, cpu)
            for name, case in cases.items()
        }
    }


def profile_suppression(repeats: int) -> dict[str, Any]:
    """Time soft suppression of 2,000 segments in each of 20 classes, on one thread."""
    segments = random_predictions.crowded(0)
    kept = partial(
        batched_nms, segments, tiou=0.1, sigma=0.5, min_score=1e-3, soft=True, multiclass=True,
        voting_tiou=0.0,
    )  # fmt: skip
    cpu = torch.device("cpu")
    return {
        "ms": {
            "200 segments kept": median_ms(lambda: kept(most=200), repeats, cpu),
            "all segments kept": median_ms(lambda: kept(most=len(segments)), repeats, cpu),
        }
    }


def profile_tracking(args: argparse.Namespace) -> dict[str, Any]:
    """Runs and metrics per second of trackers that write to `args.uri`, or to a new SQLite file."""
    from ptal_ray.benchmarks.tracking_rates import Load, measure

    load = Load(
        runs=args.runs, reports=args.reports, metrics=args.metrics, one_by_one=args.one_by_one
    )
    with tempfile.TemporaryDirectory() as folder:
        uri = args.uri or f"sqlite:///{folder}/mlflow.db"
        found = measure(uri, load, args.writers, args.repeats)
    rates = {name: sorted(one[name] for one in found) for name in found[0]}
    return {
        "ms": {},
        "rates": {
            name: {"median": statistics.median(v), "min": v[0], "max": v[-1]}
            for name, v in rates.items()
        },
    }


def _given(method: str, overrides: Sequence[str]) -> dict[str, Scalar]:
    """The train parameters in values of --set."""
    for one in overrides:
        if not one.startswith("train."):
            raise ConfigError(f"--set {one}: only train.KEY=VALUE can be set here")
    text = f"method: {method}\ndataset: random\nbudget: {{trials: 1, min_steps: 1, max_steps: 1}}"
    space = parse_space(text, name="profile", source="profile", overrides=overrides)
    for key in space.train:
        raise ConfigError(f"--set train.{key}: must be one value, not a domain")
    return space.train_fixed


def table(result: dict[str, Any]) -> str:
    """A result of `measure`, one number per line."""
    lines = [
        f"{name:28s} {times['median']:10.2f} ms   ({times['min']:.2f} to {times['max']:.2f})"
        for name, times in result["ms"].items()
    ]
    lines += [
        f"{name:28s} {rate['median']:10.1f}      ({rate['min']:.1f} to {rate['max']:.1f})"
        for name, rate in result.get("rates", {}).items()
    ]
    lines += [f"{k:28s} {v:10.2f}" for k, v in result.items() if isinstance(v, float | int)]
    if "operators" in result:
        share = result["operators"]["share in matrix products"]
        lines.append(f"{'share in matrix products':28s} {share:10.2f}")
        top = result["operators"]["top ms"].items()
        lines += [f"  {ms:9.2f} ms a step  {name}" for name, ms in top]
    return "\n".join(lines)
