"""Measures every method on a device: time of a step and of its parts, memory, two trials at once.

Needs only torch, numpy, pyarrow, numba and filelock. Each method has the sizes of its paper on
THUMOS14 (`Method.paper_sizes`, D 2048). Features are random, for timing only.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ptal_ray import __version__
from ptal_ray.benchmarks.packing import Pair, pair
from ptal_ray.benchmarks.step_times import median_ms, operators, synchronisations, wait, warm
from ptal_ray.benchmarks.workload import Sizes, workload
from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.process.cpus import usable_cpus
from ptal_ray.storage.whole import whole
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

QUICK = Sizes(dim=16, classes=3, points=3, snippets=32, batch=4)
TRIAL_STEPS = 1000  # of a trial, for trials per hour
PACKED_STEPS = 20  # of each of two concurrent trials
OUT_OF_TIME = "out of time; raise --minutes or name fewer --methods"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of the measurements.

    Args:
        methods: names.
        device: "cuda", "cuda:k" or "cpu".
        sizes: of the data.
        repeats: timed steps.
        packed_steps: steps of concurrent trials.
        until: time.monotonic() after which no further part is started.
    """

    methods: tuple[str, ...]
    device: str
    sizes: Sizes
    repeats: int
    packed_steps: int
    until: float


def plan_of(
    methods: Sequence[str], device: str, *, quick: bool, repeats: int, minutes: float
) -> Plan:
    """The plan described by flags.

    Args:
        methods: names.
        device: name of the device.
        quick: whether to use tiny sizes and few steps, to test the command.
        repeats: timed steps.
        minutes: time limit of everything.

    Raises:
        ConfigError: the device is not available.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(
            f"--device {device}: not usable here ({said}); use a machine with a GPU, or pass "
            "--device cpu --quick to try the command"
        ) from error
    return Plan(
        methods=tuple(methods),
        device=device,
        sizes=QUICK if quick else Sizes(paper=True),
        repeats=2 if quick else repeats,
        packed_steps=2 if quick else PACKED_STEPS,
        until=time.monotonic() + 60 * minutes,
    )


def measure(plan: Plan) -> dict[str, Any]:
    """Measure each method in turn; a part that fails or has no time left has an error."""
    torch.set_num_threads(usable_cpus())
    found: dict[str, Any] = {"machine": machine(plan.device), "sizes": asdict(plan.sizes)}
    with tempfile.TemporaryDirectory() as folder, pair(plan.device) as two:
        found["methods"] = {name: _method(plan, Path(folder), name, two) for name in plan.methods}
    return found


def machine(device: str) -> dict[str, Any]:
    """The hardware and versions of the measurement."""
    on_device = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_device else platform.machine(),
        "memory_gib": torch.cuda.get_device_properties(device).total_memory / 2**30
        if on_device
        else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "ptal_ray": __version__,
        "cpus": usable_cpus(),
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _method(plan: Plan, folder: Path, name: str, two: Pair) -> dict[str, Any]:
    """All parts of one method: "fp32", "bf16", "packed", each its numbers or {"error": why}."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    fp32 = workload(folder, name, plan.sizes)
    bf16 = replace(fp32, precision="bf16")
    return {
        "fp32": _part(plan, lambda: _trial(plan, fp32)),
        "bf16": _part(plan, lambda: _trial(plan, bf16)),
        "packed": _part(plan, lambda: _packed(plan, fp32, two)),
    }


def _part(plan: Plan, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if time.monotonic() > plan.until:
        return {"error": OUT_OF_TIME}
    try:
        return call()
    except (PtalError, torch.OutOfMemoryError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    finally:
        if plan.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _trial(plan: Plan, config: TrialConfig) -> dict[str, Any]:
    """The step of one trial alone."""
    trial = start(config, plan.device)
    device = trial.worker.device
    warm(trial)
    first = trial.step
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    losses: list[torch.Tensor] = []
    ms = median_ms(lambda: losses.append(trial.train_step()["total"]), plan.repeats, device)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    used = operators(trial)
    return {
        "shape": _shape(trial),
        "step_ms": ms,
        "loss": float(torch.stack(losses).float().mean()),
        "loss_steps": [first, first + len(losses)],
        "matrix_share": used["share in matrix products"],
        "operators_ms": used["top ms"],
        "synchronisations": synchronisations(trial),
        "peak_gib": peak,
    }


def _shape(trial: Trial) -> list[int]:
    """Videos, snippets and features of a batch."""
    batch = trial.batches.training(trial.step, trial.batches.plan.rows(trial.step))
    wait(trial.worker.device)
    return list(batch.features.shape)


def _packed(plan: Plan, config: TrialConfig, two: Pair) -> dict[str, Any]:
    """Trials per hour of two trials one after the other, and of two concurrent ones."""
    alone = two.seconds(config, plan.packed_steps, trials=1)
    both = two.seconds(config, plan.packed_steps, trials=2)
    hourly = 3600 * plan.packed_steps / TRIAL_STEPS
    return {
        "trial_steps": TRIAL_STEPS,
        "alone_per_hour": hourly / alone,
        "packed_per_hour": 2 * hourly / both,
        "gain": 2 * alone / both,
    }


COLUMNS = (
    "method", "batch", "step ms", "matrix products", "waits", "peak GiB", "bf16 ms", "bf16 loss",
    "trials/h alone", "two packed", "gain",
)  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The measurements as a Markdown table, with failures below it."""
    machine = found["machine"]
    lines = [
        f"Device: {machine['device']}, torch {machine['torch']}, {machine['time']}.",
        f"Random features; a trial is {TRIAL_STEPS} steps without refreshes; times are medians.",
        "matrix products: their share of a step; waits: host synchronisations in a step;",
        "bf16 loss: mean loss of the timed steps against fp32, from the same seed.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += ["| " + " | ".join(_row(name, own)) + " |" for name, own in found["methods"].items()]
    failed = [
        f"- {name}, {part}: {value['error']}"
        for name, own in found["methods"].items()
        for part, value in own.items()
        if "error" in value
    ]
    return "\n".join([*lines, *([""] if failed else []), *failed]) + "\n"


def _row(name: str, own: dict[str, Any]) -> list[str]:
    fp32, bf16, packed = own["fp32"], own["bf16"], own["packed"]
    waits = fp32.get("synchronisations")
    change = ""
    if "loss" in fp32 and "loss" in bf16:
        change = f"{100 * (bf16['loss'] / fp32['loss'] - 1):+.2f} %"
    return [
        name,
        " x ".join(map(str, fp32.get("shape", []))),
        _number(fp32.get("step_ms", {}).get("median")),
        _number(fp32.get("matrix_share")),
        "" if waits is None else str(len(waits)),
        _number(fp32.get("peak_gib")),
        _number(bf16.get("step_ms", {}).get("median")),
        change,
        _number(packed.get("alone_per_hour")),
        _number(packed.get("packed_per_hour")),
        _number(packed.get("gain")),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def write(found: dict[str, Any], out: Path) -> None:
    """Write gpu.json and GPU.md to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu.json", json.dumps(found, indent=1)), ("GPU.md", table(found))):
        with whole(out / name) as beside:
            beside.write_text(text, encoding="utf-8")


def failures(found: dict[str, Any]) -> int:
    """Number of failed parts."""
    return sum("error" in part for own in found["methods"].values() for part in own.values())
