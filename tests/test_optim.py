"""The optimiser's groups, the schedule and the average of weights, on a small trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_trial import config

from ptal_ray.training.optim import move_average
from ptal_ray.training.stages import start


def test_adamw_spares_vectors(store: Path) -> None:
    trial = start(config(store, "lacp", train={"optimizer": "adamw", "weight_decay": 0.3}))
    decayed, spared = trial.learner.optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and all(p.dim() > 1 for p in decayed["params"])
    assert spared["weight_decay"] == 0 and all(p.dim() <= 1 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(
        list(trial.learner.model.parameters())
    )


def test_the_rate_rises_and_falls(store: Path) -> None:
    train = {"lr": 1e-3, "warmup": 0.5, "cosine": True}
    trial = start(config(store, "lacp", train=train, report_steps=(8,)))
    rates = []
    for _ in range(8):
        trial.train_step()
        rates.append(trial.learner.optimizer.param_groups[0]["lr"])
    assert rates[0] == 0 and rates[3] == rates[4] == pytest.approx(1e-3)
    assert rates[5:] == sorted(rates[5:], reverse=True) and rates[7] < 2e-4


def test_gradients_are_clipped(store: Path) -> None:
    trial = start(config(store, "lacp", train={"grad_clip": 1e-3}))
    trial.train_step()
    norm = torch.stack(
        [p.grad.norm() for p in trial.learner.model.parameters() if p.grad is not None]
    )
    assert norm.norm() <= 1.001e-3


def test_buffers_are_copied_into_the_average() -> None:
    model, average = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    average.running_mean.fill_(torch.inf)  # as the longest duration of APN before the first labels
    model.running_mean.fill_(3.0)
    model.weight.data.fill_(2.0)
    move_average(average, model, 0.9, 100)
    assert average.running_mean.item() == 3.0
    assert 1.0 < average.weight.item() < 1.2


def test_the_average_follows_the_weights_and_is_what_counts(store: Path) -> None:
    trial = start(config(store, "lacp", train={"ema": 0.5}))
    name, weight = next(iter(trial.learner.model.named_parameters()))
    want = weight.detach().clone()
    for share in (1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5):
        trial.train_step()
        want = share * want + (1 - share) * weight.detach()
    kept = dict(trial.learner.judged.named_parameters())[name]
    torch.testing.assert_close(kept, want)
    assert not torch.equal(kept, weight)
