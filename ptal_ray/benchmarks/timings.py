"""Times of the parts of a method, of evaluation, of suppression and of tracking."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.benchmarks.random_store import random_store
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import load, names
from ptal_ray.ops import workloads
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.nms import batched_nms
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

MATRIX_PRODUCTS = ("mm", "conv", "attention", "gemm", "linear")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """What `python -m ptal_ray.profile` measures for its flags, JSON-able.

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
    if args.target == "driver":
        from ptal_ray.benchmarks.driver import profile_driver  # starts Ray, which no other does

        return profile_driver(args.trials, args.concurrent)
    if args.target not in names():
        known = ", ".join([*names(), "evaluation", "suppression", "tracking", "driver"])
        raise ConfigError(f"profile: target {args.target!r} is unknown; known are {known}")
    return profile_method(args)


def median_ms(call: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """Median, minimum and maximum milliseconds of `call` after one warm-up."""
    print(f"timing {repeats + 1} calls ...", file=sys.stderr, flush=True)
    taken = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        taken.append((time.perf_counter() - began) * 1e3)
    rest = taken[1:]
    return {"median": statistics.median(rest), "min": min(rest), "max": max(rest)}


def profile_method(args: argparse.Namespace) -> dict[str, Any]:
    """Times the parts of a training step, scoring and decoding of `args.target`."""
    device = torch.device(args.device)
    method = load(args.target)
    with tempfile.TemporaryDirectory() as directory:
        store = random_store(
            Path(directory) / "store",
            videos=max(args.batch, 4),
            snippets=args.snippets,
            dim=args.dim,
            classes=args.classes,
            points=args.points,
        )
        train = asdict(method.train_params()) | {
            "batch_size": args.batch,
            "refresh_every": 100_000,  # none is due once the first epoch has made them
        }
        if method.stage is not None:
            train[method.stage.steps] = 1  # what is timed comes after it
        if "text_encoder" in train:
            train["text_encoder"] = "learned"  # needs no names of classes
        train |= {k: v for k, v in (_pair(p) for p in args.set) if k in train}
        config = TrialConfig(
            method=args.target,
            store=str(store),
            train=train,
            decode=asdict(method.decode_params()),
            decode_domains={},
            decode_settings=1,
            cross_fit=False,
            seed=0,
            report_steps=(10**6,),
            fit_on="train",
            score_on="test",
            precision=args.precision,
        )
        return _time_trial(start(config, args.device), args.repeats, device)


def _time_trial(trial: Trial, repeats: int, device: torch.device) -> dict[str, Any]:
    plan = trial.batches.plan
    for _ in range(3 * plan.steps_per_epoch):  # past those, and past a start that trains less
        trial.train_step()
    rows = plan.rows(trial.step)
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
        "operators": _operators(trial, device),
    }
    if trial.task.method.refresh is not None:
        result["refresh ms per video"] = timings["refresh of a batch"]["median"] / videos
    if device.type == "cuda":
        result["peak device MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
    result["peak resident MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return result


def _operators(trial: Trial, device: torch.device) -> dict[str, Any]:
    """Time by operator in three steps, and the share of it spent in matrix products."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            trial.train_step()
        _wait(device)
    on_device = device.type == "cuda"
    times: dict[str, float] = {}
    for event in profiler.key_averages():
        micros = event.self_device_time_total if on_device else event.self_cpu_time_total
        if micros and (not on_device or event.device_type.name == "CUDA"):
            times[event.key] = times.get(event.key, 0.0) + micros / 3e3
    total = sum(times.values())
    matrix = sum(t for k, t in times.items() if any(m in k.lower() for m in MATRIX_PRODUCTS))
    top = sorted(times.items(), key=lambda kv: -kv[1])[:12]
    return {
        "total ms": total,
        "share in matrix products": matrix / total if total else 0.0,
        "top ms": {k[:60]: round(t, 3) for k, t in top},
    }


def profile_evaluation(repeats: int) -> dict[str, Any]:
    """Times detection mAP at the sizes of ActivityNet 1.3 and THUMOS14, on one thread."""
    cases = {"anet-like": workloads.anet_like(0), "thumos-like": workloads.thumos_like(0)}
    cpu = torch.device("cpu")
    return {
        "ms": {
            name: median_ms(partial(detection_map, *case), repeats, cpu)
            for name, case in cases.items()
        }
    }


def profile_suppression(repeats: int) -> dict[str, Any]:
    """Times soft suppression of 2,000 segments in each of 20 classes, on one thread."""
    segments = workloads.crowded(0)
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
    """Runs and metrics a second that trackers write to `args.uri`, or to a new SQLite file."""
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _pair(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key.removeprefix("train."), json.loads(value)


def table(result: dict[str, Any]) -> str:
    """What `measure` found, a line a number."""
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
