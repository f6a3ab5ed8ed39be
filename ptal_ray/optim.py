"""How weights move: the optimiser of a trial, its learning rate, and the average of its weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LAST_LR = 1e-8  # where a cosine ends


def make_optimizer(model: nn.Module, hp: Any) -> torch.optim.Optimizer:
    """Adam with L2 decay of everything, or AdamW that spares vectors: biases, norms and scales.

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


def learning_rate(hp: Any, step: int, steps: int) -> float:
    """lr of an optimiser step: a linear rise from 0, then level or along a cosine.

    Args:
        hp: with lr, warmup (share of the steps) and cosine.
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
    model: nn.Module, optimizer: torch.optim.Optimizer, hp: Any, step: int, steps: int
) -> None:
    """Moves the weights along their gradients, clipped, at the learning rate of this step."""
    if hp.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), hp.grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(hp, step, steps)
    optimizer.step()


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that `update_parameters` moves towards it."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
