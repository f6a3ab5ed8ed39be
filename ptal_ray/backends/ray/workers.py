"""A Tune trial that trains on several workers, which are reused for later trials.

Starting a Ray Train run takes seconds, so each Tune actor starts one and gives its workers one
trial after the other through a mailbox. If a worker dies, Ray Train restarts all of them; they then
continue from the checkpoint of the job in the mailbox.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import train, tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ptal_ray.backends.ray.mailbox import LEAVE, STOP, WAIT, Mailbox
from ptal_ray.backends.ray.trainable import device, release_memory
from ptal_ray.space.space import Resources
from ptal_ray.study.job import STANDBY, Job, JobRun, stand_by
from ptal_ray.study.results import Failed, Result

DRIVER_MEMORY = 300 * 2**20  # a request that is not empty and takes no CPU from a worker
STOP_TIMEOUT_S = 3.0  # of waiting for the workers to end
RELEASE_S = 10.0  # of waiting, after which another trial may use the workers' resources


class StandingWorkers(tune.Trainable):
    """Assigns jobs to its workers; with `reuse_actors` all of them stay for the whole study.

    Workers that have waited for a while stop, because a trial that lost its node may need their
    resources; a later job starts new ones.

    Config: "job" (`Job.to_json` or STANDBY), "resources" (fields of `Resources`), "scratch" (where
    Ray Train writes its own state).
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first job."""
        self._resources, self._scratch = Resources(**config["resources"]), config["scratch"]
        self._group: WorkerGroup | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Post the next job, to new workers if there are none."""
        self._since = time.monotonic()
        self._standby = new_config["job"] == STANDBY
        if not self._standby:
            if self._group is None or self._group.ended:
                self._group = WorkerGroup(self._resources, self._scratch)
            self._group.post(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the workers' next report.

        Raises:
            RuntimeError: the workers have ended; a new actor must be made.
        """
        if not self._standby:
            assert self._group is not None
            return self._group.next().plain()
        if time.monotonic() - self._since > RELEASE_S:
            self.cleanup()
        return stand_by().plain()

    def cleanup(self) -> None:
        """Stop the workers."""
        if self._group:
            self._group.stop()
            self._group = None


class WorkerGroup:
    """The workers of one Ray Train run, and the mailbox between them and this process."""

    def __init__(self, resources: Resources, scratch: str) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = (
            ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()
        )
        self.ended = ""
        arguments = (resources, scratch)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def post(self, job: str) -> None:
        """Post the next job."""
        ray.get(self._mailbox.post.remote(job))

    def next(self) -> Result:
        """Wait for the next report.

        Raises:
            RuntimeError: the workers have ended.
        """
        result: Result = ray.get(self._mailbox.next.remote())
        if self.ended:
            raise RuntimeError(self.ended)
        return result

    def stop(self) -> None:
        """Stop the workers."""
        self._mailbox.post.remote(STOP)
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self, resources: Resources, scratch: str) -> None:
        """Run the workers until they are stopped; called in its own thread."""
        try:
            _trainer(self._mailbox, resources, scratch).fit()
            self.ended = "the workers have stopped"
        except Exception as error:  # any error of Ray Train ends these workers, not the study
            self.ended = f"{type(error).__name__}: {error}"
        ray.get(self._mailbox.fail.remote(self.ended))


def standing_workers() -> Any:
    """The trainable of a study with several workers per trial."""
    return tune.with_resources(StandingWorkers, {"cpu": 0, "memory": DRIVER_MEMORY})


def _trainer(mailbox: Any, resources: Resources, scratch: str) -> Any:
    from ray.train.torch import TorchConfig, TorchTrainer  # seconds, only in this process

    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return TorchTrainer(
        serve,
        train_loop_config={
            "mailbox": mailbox,
            "device": device(resources),
            "threads": resources.cpus_per_worker,
        },
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if resources.gpus_per_worker else "gloo"
        ),
        scaling_config=train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={k: v for k, v in per_worker.items() if v},
            placement_strategy=resources.placement.upper(),
        ),
        run_config=train.RunConfig(
            name=f"workers-{os.urandom(4).hex()}",
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=-1),
        ),
    )


def serve(config: dict[str, Any]) -> None:
    """The loop of every worker: one job after the other, until told to stop.

    Args:
        config: "mailbox", "device", "threads".
    """
    torch.set_num_threads(config["threads"])
    gc.freeze()
    context, mailbox = train.get_context(), config["mailbox"]
    rank, world_size = context.get_world_rank(), context.get_world_size()
    last = 0
    while True:
        taken = from_first(rank, partial(_ask, mailbox.take, last))
        if taken is None:
            continue
        last, text = taken
        if text == STOP:
            return
        run = JobRun(Job.from_json(text), config["device"], rank, world_size)
        try:
            _work(run, mailbox, last)
        except BaseException as error:
            ray.get(mailbox.crashed.remote(last, f"{type(error).__name__}: {error}"))
            raise
        run.job.files.leave()
        del run
        release_memory()


def _work(run: JobRun, mailbox: Any, number: int) -> None:
    """Train one job, report by report, until it is done or the mailbox tells it to leave.

    Raises:
        RuntimeError: the job failed on this worker; others may still wait for it, so all workers
            must be restarted.
    """
    while True:
        result = run.advance()
        if run.rank == 0 or isinstance(result, Failed):
            ray.get(mailbox.report.remote(number, result))
        if isinstance(result, Failed):
            raise RuntimeError(result.message)
        decision = WAIT
        while decision == WAIT:
            decision = from_first(run.rank, partial(_ask, mailbox.decision, number))
        if decision == LEAVE:
            return


def _ask(method: Any, number: int) -> Any:
    return ray.get(method.remote(number))


def from_first(rank: int, value: Callable[[], Any]) -> Any:
    """The return value of `value` on rank 0, for every rank."""
    shared = [value() if rank == 0 else None]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]
