"""Times of a trial: a step, its operators, and synchronisations with the device."""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ptal_ray.benchmarks.workload import MANY_STEPS
from ptal_ray.training.trial import Trial

MATRIX_PRODUCTS = ("mm", "conv", "attention", "gemm", "linear")
WARM_EPOCHS = 3  # after the steps that compute labels, and after a start that trains fewer parts
PROFILED_STEPS = 3


def wait(device: torch.device) -> None:
    """Wait for all work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_ms(call: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """Median, minimum and maximum milliseconds of `call` after one warm-up."""
    print(f"timing {repeats + 1} calls ...", file=sys.stderr, flush=True)
    taken = []
    for _ in range(repeats + 1):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        taken.append((time.perf_counter() - began) * 1e3)
    rest = taken[1:]
    return {"median": statistics.median(rest), "min": min(rest), "max": max(rest)}


def warm(trial: Trial) -> None:
    """Train until steps have all terms of the loss; no later step computes labels."""
    labels = trial.batches.labels
    for _ in range(max(WARM_EPOCHS * trial.batches.plan.steps_per_epoch, labels.refresh_every + 1)):
        trial.train_step()
    labels.renew(np.arange(labels.num_videos), MANY_STEPS)


def operators(trial: Trial) -> dict[str, Any]:
    """Time by operator in a step, and the fraction spent in matrix products."""
    device = trial.worker.device
    on_device = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_device:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            trial.train_step()
        wait(device)
    times: dict[str, float] = {}
    for event in profiler.key_averages():
        micros = event.self_device_time_total if on_device else event.self_cpu_time_total
        if micros and (not on_device or event.device_type.name == "CUDA"):
            times[event.key] = times.get(event.key, 0.0) + micros / 1e3 / PROFILED_STEPS
    total = sum(times.values())
    matrix = sum(t for k, t in times.items() if any(m in k.lower() for m in MATRIX_PRODUCTS))
    top = sorted(times.items(), key=lambda kv: -kv[1])[:12]
    return {
        "total ms": total,
        "share in matrix products": matrix / total if total else 0.0,
        "top ms": {k[:60]: round(t, 3) for k, t in top},
    }


def synchronisations(trial: Trial) -> list[str] | None:
    """Places, "file:line", at which a step waits for the device; None without a GPU."""
    if trial.worker.device.type != "cuda":
        return None
    wait(trial.worker.device)
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trial.train_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in met if "synchroniz" in str(w.message)]
