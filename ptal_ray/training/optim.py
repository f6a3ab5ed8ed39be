"""The optimiser of a trial, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import nn

from ptal_ray.methods.method import TrainParams

LAST_LR = 1e-8  # final value of a cosine


def make_optimizer(model: nn.Module, hp: TrainParams) -> torch.optim.Optimizer:
    """Adam with L2 decay of all parameters, or AdamW without decay of biases, norms and scales.

    Source: AdamW: ActionFormer code.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if hp.optimizer == "adam":
        return torch.optim.Adam(trained, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": hp.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=hp.lr, fused=True)


def learning_rate(hp: TrainParams, step: int, steps: int) -> float:
    """lr of an optimiser step: a linear rise from 0, then constant or a cosine.

    Args:
        hp: with lr, warmup (fraction of the steps) and cosine.
        step: optimiser steps done.
        steps: of the whole training.

    Source: ActionFormer code; golden actionformer/lr_schedule.
    """
    rise = round(hp.warmup * steps)
    if step < rise:
        return float(hp.lr * step / max(rise - 1, 1))
    if not hp.cosine:
        return float(hp.lr)
    done = (step - rise) / (steps - rise)
    return float(LAST_LR + (hp.lr - LAST_LR) * (1 + math.cos(math.pi * done)) / 2)


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, hp: TrainParams, step: int, steps: int
) -> None:
    """Update the weights with clipped gradients and the learning rate of this step."""
    if hp.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), hp.grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(hp, step, steps)
    optimizer.step()


def averaged(model: nn.Module) -> nn.Module:
    """A copy of the model without gradients, for `move_average`."""
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Update the moving average of the parameters with the model, in place; buffers are copied.

    Deviation: the decay is at most (1 + step) / (10 + step), so that a short training is not
    evaluated with weights close to the initial ones; released code has a constant decay and trains
    for long.

    Args:
        decay: weight of the previous average.
        step: optimiser steps done before the one just made.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    torch._foreach_lerp_([own for own, _ in pairs], [new for _, new in pairs], share)
    for own, new in zip(average.buffers(), model.buffers(), strict=True):
        own.copy_(new)
