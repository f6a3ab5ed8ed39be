"""A Tune trial that trains in its own process, which is reused for later trials."""

from __future__ import annotations

import gc
from typing import Any

import torch
from ray import tune

from ptal_ray.space.space import Resources
from ptal_ray.study.job import STANDBY, Job, JobRun, stand_by


class TrialProcess(tune.Trainable):
    """Runs one job after the other; with `reuse_actors` the process keeps its imports.

    Config: "job" (`Job.to_json` or STANDBY), "device", "threads".
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare the process and take the first job."""
        torch.set_num_threads(config["threads"])
        self.job_run: JobRun | None = None
        gc.freeze()  # imported objects are never collected, so collections between trials are fast
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        if self.job_run:
            self.job_run.job.files.leave()
        self.job_run = None
        release_memory()
        if new_config["job"] != STANDBY:
            self.job_run = JobRun(Job.from_json(new_config["job"]), new_config["device"])
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next report."""
        result = self.job_run.advance() if self.job_run else stand_by()
        return result.plain()


def release_memory() -> None:
    """Free the device memory of the last trial."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device(resources: Resources) -> str:
    """The device of a worker with these resources; Ray shows it only its own GPU."""
    return "cuda" if resources.gpus_per_worker else "cpu"


def trial_process(resources: Resources) -> Any:
    """The trainable of a study with one worker per trial."""
    share = {"cpu": resources.cpus_per_worker, "gpu": resources.gpus_per_worker}
    return tune.with_resources(TrialProcess, share)
