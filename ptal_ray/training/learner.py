"""The network of a trial, its optimiser and the moving average of its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import AnyMethod, Batch, StageResult, Step, TrainParams
from ptal_ray.training.optim import averaged, make_optimizer, move_average, update
from ptal_ray.training.task import Task
from ptal_ray.training.worker import Worker


class _Objective(nn.Module):
    """The loss as a module, so that DDP sees one forward pass."""

    def __init__(self, method: AnyMethod, model: nn.Module, hp: TrainParams, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self._loss, self._hp, self._bf16 = method.loss, hp, bf16

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The terms of the loss of a batch."""
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self._bf16):
            return self._loss(self.model, batch, self._hp, step)


class Learner:
    """A network that takes optimiser steps.

    Args:
        task: the task.
        worker: this worker; gradients are averaged over the workers of a trial.
        before: the result of the earlier stage; its weights are loaded, if it has any.
    """

    def __init__(self, task: Task, worker: Worker, before: StageResult | None) -> None:
        self.hp, self.steps = task.hp, task.config.report_steps[-1]
        self.model = _build(task.method, task.store, task.hp, task.config.seed).to(worker.device)
        if before is not None and before.weights:
            missing = self.model.load_state_dict(before.weights, strict=False).missing_keys
            assert not set(missing) & {name for name, _ in self.model.named_parameters()}, missing
        self.optimizer = make_optimizer(self.model, task.hp)
        self.average = averaged(self.model) if task.hp.ema else None
        self.objective = _wrapped(task, self.model, worker)

    @property
    def judged(self) -> nn.Module:
        """The module that is evaluated: the moving average if there is one."""
        return self.average or self.model

    def take_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """One optimiser step; the detached terms of the loss and their total."""
        terms: dict[str, Tensor] = self.objective(batch, step)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        update(self.model, self.optimizer, self.hp, step.index, self.steps)
        if self.average:
            move_average(self.average, self.model, self.hp.ema, step.index)
        return {"total": total.detach(), **{k: v.detach() for k, v in terms.items()}}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values for `load_state_dict`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])


def _build(method: AnyMethod, store: FeatureStore, hp: TrainParams, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(store, hp)


def _wrapped(task: Task, model: nn.Module, worker: Worker) -> nn.Module:
    objective = _Objective(task.method, model, task.hp, task.config.precision == "bf16")
    if worker.alone:
        return objective
    # Terms switched off for some epochs leave parameters without a gradient.
    return DistributedDataParallel(
        objective, forward_sync_buffers=False, find_unused_parameters=True
    )
