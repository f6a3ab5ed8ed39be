"""Trials that do not train, to measure the work of the driver."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune

from ptal_ray.backends.ray.private import loopback
from ptal_ray.backends.ray.scratch import socket_folder
from ptal_ray.study.event_types import FinalReport
from ptal_ray.study.results import Reported, StandBy

SLEEP_S = 1.0  # between the reports of a trial


class DummyTrial(tune.Trainable):
    """Reports artificial objectives at every report step; does not import PyTorch.

    Config: "job" (as for `TrialProcess`).
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first job."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        self._job: Any = json.loads(new_config["job"]) if new_config["job"] else None
        if self._job:
            self._plan = json.loads(self._job["config"])
            self._steps = iter(self._plan["report_steps"])
        return True

    def step(self) -> dict[str, Any]:
        """The next report, after a pause."""
        time.sleep(SLEEP_S if self._job else 0.2)
        if not self._job:
            return StandBy().plain()
        return made_report(self._job, self._plan, next(self._steps)).plain()


def made_report(job: dict[str, Any], plan: dict[str, Any], step: int) -> Reported:
    """The report of a trial at a report step.

    Args:
        job: a JSON `Job`.
        plan: its configuration.
        step: the step.
    """
    found = made_up(plan["train"], step)
    return Reported(
        step=step, **found, settings=(found["objective"],), decode={}, seconds=SLEEP_S,
        to_first_step_s=0.01, done=step == plan["report_steps"][-1],
        event=_final(job, plan, step) if job["role"] else None,
    )  # fmt: skip


def _final(job: dict[str, Any], plan: dict[str, Any], step: int) -> FinalReport:
    value = made_up(plan["train"], step)["objective"]
    split = "test" if job["role"] == "test" else "val"
    return FinalReport(
        role=job["role"], arm=job["arm"], seed=job["repeat"], step=step, params=plan["train"],
        decode=plan["decode"], metrics={f"{split}/mAP_avg": value},
    )  # fmt: skip


def made_up(train: dict[str, Any], step: int) -> dict[str, Any]:
    """The objective and ten metrics of a trial at a step, computed from its parameters."""
    quality = math.exp(-((math.log10(train["lr"]) + 3) ** 2) - (train["weight_decay"] - 1e-3) ** 2)
    value = quality * (1 - math.exp(-step / 30))
    names = ("val/mAP_avg", *(f"val/mAP_0.{k}0" for k in range(1, 8)), "train/loss", "train/lr")
    return {"objective": value, "metrics": {n: value / k for k, n in enumerate(names, 1)}}


def dummy_process() -> Any:
    """The trainable; each trial uses one CPU of the cluster."""
    return tune.with_resources(DummyTrial, {"cpu": 1})


@contextmanager
def many_cpus(number: int, num_gpus: int = 0) -> Iterator[str]:
    """A node on this machine that declares `number` CPUs and some GPUs; yields its address."""
    from ray.cluster_utils import Cluster  # from Ray's own tests

    short = socket_folder("/r12345678")  # the name used in the next line
    with loopback(), tempfile.TemporaryDirectory(prefix="r", dir=short) as folder:
        node = {
            "num_cpus": number, "num_gpus": num_gpus, "node_ip_address": "127.0.0.1",
            "include_dashboard": False, "object_store_memory": 100_000_000,
        }  # fmt: skip
        # Without its own folder it would replace a running cluster.
        before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = folder
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            yield str(cluster.address)
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]
            del os.environ["RAY_TMPDIR"]
            if before is not None:
                os.environ["RAY_TMPDIR"] = before


class Clock:
    """CPU seconds and numbers of calls of functions in this process, by given names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Measure the CPU time of `owner.method` in its thread from now on."""
        original: Callable[..., Any] = getattr(owner, method)
        self.seconds.setdefault(name, 0.0)
        self.calls.setdefault(name, 0)

        def timed(*arguments: Any, **named: Any) -> Any:
            """The original function, with its processor time added to the total."""
            began = time.thread_time()
            try:
                return original(*arguments, **named)
            finally:
                self.seconds[name] += time.thread_time() - began
                self.calls[name] += 1

        setattr(owner, method, timed)
