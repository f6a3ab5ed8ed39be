"""The one training loop: `while not trial.done: report = trial.advance()`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptal_ray.data.batching import PackedSplit, stored_grid
from ptal_ray.data.sampling import BatchPlan
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores, Segments
from ptal_ray.errors import DivergedError
from ptal_ray.methods.method import (
    Batch,
    Known,
    Method,
    Pseudo,
    Stage,
    StageResult,
    Step,
    load,
)
from ptal_ray.space.space import Scalar
from ptal_ray.training.batches import Batches, check_divides
from ptal_ray.training.checkpoint import read_checkpoint, write_checkpoint
from ptal_ray.training.config import TrialConfig, TrialReport
from ptal_ray.training.decoding import DecodeResult, search_decode
from ptal_ray.training.label_quality import label_length_s
from ptal_ray.training.labels import LabelTable
from ptal_ray.training.model_file import model_file, write_model
from ptal_ray.training.optim import averaged, make_optimizer, move_average, update
from ptal_ray.training.scoring import from_first, gathered, not_finite, score_videos
from ptal_ray.training.selection import Objective, ground_truth, objective_of
from ptal_ray.training.stages import stage_result
from ptal_ray.training.supervision import split_ids, visible_ids, visible_points


class _Objective(nn.Module):
    """The loss as a module, so that DDP sees one forward pass."""

    def __init__(self, method: Method, model: nn.Module, hp: Any, bf16: bool) -> None:
        super().__init__()
        self.model = model
        self._loss, self._hp, self._bf16 = method.loss, hp, bf16

    def forward(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self._bf16):
            return self._loss(self.model, batch, self._hp, step)


class Trial:
    """A model in training, its pseudo-labels and its position in the schedule.

    Args:
        config: what to train.
        device: "cpu", "cuda" or "cuda:k".
        rank, world_size: this worker among those of the trial; with several,
            torch.distributed is initialised and every rank makes the same calls.

    `annotated` are the ids whose annotations a method that is not supervised by points may see.

    Raises:
        ConfigError: the batch does not divide among the workers.
        DataError: a split is empty.
    """

    def __init__(
        self, config: TrialConfig, device: str = "cpu", rank: int = 0, world_size: int = 1
    ) -> None:
        self.config, self.rank, self.world_size = config, rank, world_size
        self.device = torch.device(device)
        self.method = load(config.method)
        train_params: Any = self.method.train_params
        self.hp = train_params(**config.train)
        self.store = FeatureStore.open(config.store)
        fit_ids, self.score_ids = split_ids(self.store, config, self.hp)
        seen, labelled = visible_ids(self.store, fit_ids, self.method, self.hp)
        self.annotated = () if self.method.supervision == "point" else labelled
        truth = partial(ground_truth, self.store, labelled, "val")
        points = visible_points(self.store, seen, self.method, truth)
        resample_to = self.hp.resample_to
        self.split = PackedSplit(
            self.store, seen, self.device, points=points, resample_to=resample_to
        )
        self.plan = self._plan([np.arange(len(seen))])
        self.model = _build(self.method, self.store, self.hp, config.seed).to(self.device)
        stage = self._stage_result(self.method.stage) if self.method.stage else None
        self._start(stage)
        self.optimizer = make_optimizer(self.model, self.hp)
        self.average = averaged(self.model) if self.hp.ema else None
        self.objective = self._wrap()
        self.labels = LabelTable(len(seen), self.hp.refresh_every, self.device)
        known = Known(split=self.split, stage=stage, truth=truth, labelled=labelled)
        bank = self.method.bank(known, self.hp) if self.method.bank else {}
        self.bank = {name: value.to(self.device) for name, value in bank.items()}
        if self.method.labels is not None:
            self.labels.fill(self.method.labels(known, self.hp))
            if self.method.groups is not None and self.labels.tables is not None:
                self.plan = self._plan(self.method.groups(self.labels.tables, self.hp))
        self.batches = Batches(self.split, self.plan, self.labels, self.hp, rank, world_size)
        self.step = 0
        self.seconds = 0.0
        self.first_step_at: float | None = None
        self.scores: list[Scores] = []
        self.detections: dict[str, Segments] = {}

    @property
    def done(self) -> bool:
        """Whether the last report step is reached."""
        return self.step >= self.config.report_steps[-1]

    def advance(self) -> TrialReport:
        """Trains to the next report step, scores the selection videos and reports.

        Raises:
            DivergedError: a loss or a score is not finite.
        """
        began = time.perf_counter()
        losses = self.train_until(next(s for s in self.config.report_steps if s > self.step))
        decoded = self._score()
        self.seconds += time.perf_counter() - began
        report = from_first(self._report(losses, decoded), self.world_size)
        assert report is not None
        return report

    def train_until(self, step: int) -> dict[str, float]:
        """Trains until `step` steps are done; returns the mean of each term of the loss.

        Raises:
            DivergedError: one is not finite.
        """
        sums: dict[str, Tensor] = {}
        first = self.step
        while self.step < step:
            for name, term in self.train_step().items():
                sums[name] = sums[name] + term if name in sums else term
        return self._mean_losses(sums, step - first)

    @property
    def made_labels(self) -> Pseudo | None:
        """The labels made before training, (V, ...); None where the method has no such labels."""
        return self.labels.tables if self.method.labels else None

    def save(self, path: Path) -> None:
        """Writes the whole state to `path`, at once or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "labels": self.labels.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        write_checkpoint(path, self._identity, state)

    def save_model(self, path: Path, decode: dict[str, Scalar]) -> None:
        """Writes the file by which `decode` finds actions in new videos, at once or not at all."""
        write_model(path, model_file(self.config, self.store, self.judged, decode))

    def load(self, path: Path) -> None:
        """Continues from what `save` wrote.

        Raises:
            DataError: the file is unreadable or belongs to another configuration.
        """
        state = read_checkpoint(path, self._identity, self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.labels.load_state_dict(state["labels"])
        self.step, self.seconds = state["step"], state["seconds"]

    @property
    def _identity(self) -> str:
        """The configuration, with the content of its store: a study and its data may move."""
        return replace(self.config, stages="", store=self.store.info.content_hash).to_json()

    @property
    def judged(self) -> nn.Module:
        """The module whose scores count: the moving average where there is one."""
        return self.average or self.model

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns the detached terms of the loss and their total."""
        self.objective.train()
        rows = self.plan.rows(self.step)
        if self.method.refresh is not None and (stale := self.labels.stale(rows, self.step)).any():
            self.refresh(rows, stale)
        terms = self.objective(self.batch(rows), self.step_context())
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        update(self.model, self.optimizer, self.hp, self.step, self.config.report_steps[-1])
        if self.average:
            move_average(self.average, self.model, self.hp.ema, self.step)
        self.step += 1
        if self.first_step_at is None:
            self.first_step_at = time.time()
        return {"total": total.detach(), **{k: v.detach() for k, v in terms.items()}}

    def batch(self, rows: NDArray[np.int64], crop: bool = True) -> Batch:
        """This worker's part of the global batch of `rows`, at the current step."""
        return self.batches.training(self.step, rows, crop)

    def refresh(self, rows: NDArray[np.int64], stale: NDArray[np.bool_]) -> None:
        """Renews the labels of the stale rows of the global batch, the same on every worker."""
        assert self.method.refresh is not None
        mine = self.batches.mine(rows)
        due = mine[self.batches.mine(stale)]
        if len(due):
            self.model.eval()
            with torch.no_grad():
                fresh = self.method.refresh(self.model, self.batches.whole(due), self.hp)
            self.labels.store(due, fresh)
            self.model.train()
        if self.world_size > 1:
            self.labels.exchange(rows, mine, self.world_size)
        self.labels.renewed_at[rows[stale]] = self.step

    def step_context(self) -> Step:
        """What the loss of the coming step sees; its randomness follows from seed and step."""
        generator = torch.Generator(self.device)
        seed = np.random.SeedSequence([self.config.seed, 3, self.step]).generate_state(1)[0]
        generator.manual_seed(int(seed))
        return Step(
            index=self.step,
            epoch=self.step / self.plan.steps_per_epoch,
            generator=generator,
            split_pseudo=self.labels.tables,
            bank=self.bank,
            rank=self.rank,
            world_size=self.world_size,
        )

    def _mean_losses(self, sums: Mapping[str, Tensor], steps: int) -> dict[str, float]:
        """Mean of each term over steps and workers; the only place a loss reaches the host."""
        stacked = torch.stack([v.float() for v in sums.values()]) / steps
        if self.world_size > 1:
            dist.all_reduce(stacked)
            stacked /= self.world_size
        losses = dict(zip(sums, stacked.tolist(), strict=True))
        for name, value in losses.items():
            if not np.isfinite(value):
                raise DivergedError(f"train/loss_{name}: {value} by step {self.step}; lower lr")
        return losses

    def _score(self) -> DecodeResult | None:
        """Scores the selection videos and decodes them, on rank 0."""
        self.scores = self._all_scores(self.score_ids)
        if self.rank:
            return None
        result = self.decode(self.scores)
        self.detections = result.detections
        return result

    def _all_scores(self, ids: tuple[str, ...]) -> list[Scores]:
        """The scores of `ids`, on rank 0; every worker scores its share."""
        share = ids[self.rank :: self.world_size]
        scored = gathered(self.score(share) if share else [], self.rank, self.world_size)
        if (bad := not_finite(scored)) is not None:
            raise DivergedError(f"scores of {bad}: not finite at step {self.step}; lower lr")
        by_id = {s.id: s for s in scored}
        return [by_id[i] for i in ids] if self.rank == 0 else []

    def _plan(self, groups: list[NDArray[Any]]) -> BatchPlan:
        """The order of the videos.

        Raises:
            ConfigError: a batch does not divide among the workers.
        """
        plan = BatchPlan(
            groups=tuple(groups), asked_batch_size=self.hp.batch_size, seed=self.config.seed
        )
        check_divides(plan, self.world_size, self.config.method)
        return plan

    def _stage_result(self, stage: Stage) -> StageResult | None:
        """What the stage before leaves, trained or found in the cache; None without any step.

        Raises:
            DivergedError: the stage diverged.
        """
        steps = int(getattr(self.hp, stage.steps))
        if not steps:
            return None
        config = replace(
            self.config, method=stage.method, train=asdict(stage.params(self.hp)), decode={},
            decode_domains={}, report_steps=(steps,),
        )  # fmt: skip

        @cache  # asked for twice where no folder keeps it
        def made() -> StageResult:
            trial = Trial(config, str(self.device), self.rank, self.world_size)
            trial.train_until(steps)
            weights = {n: p.detach().cpu() for n, p in trial.judged.named_parameters()}
            return StageResult(
                scores=trial._all_scores(self.split.ids) if stage.scored else [],
                weights=weights if stage.starts else {},
            )

        kept = partial(stage_result, rank=self.rank, world_size=self.world_size)
        content, asked = self.store.info.content_hash, self.split.ids if stage.scored else ()
        key = (config, content, asked)
        if stage.rules is None:
            return kept(key, made)
        rules = stage.rules(self.hp)
        every = zip(self.split.ids, self.split.grids, strict=True)
        annotated, duration = set(self.annotated), self.store.duration_s
        grids = {id: grid for id, grid in every if id not in annotated}

        def predicted() -> StageResult:
            scores = kept(key, made).scores  # every worker asks, the first one decodes
            found = {
                s.id: self.method.decode(s, grids[s.id], duration(s.id), rules)
                for s in scores
                if s.id in grids and self.rank == 0
            }
            columns = [Scores(id=id, arrays=asdict(own)) for id, own in found.items()]
            return StageResult(scores=columns, weights={})

        found = kept((replace(config, decode=asdict(rules)), content, tuple(grids)), predicted)
        return replace(kept(key, made, scored=False), scores=found.scores)

    def _start(self, stage: StageResult | None) -> None:
        """Takes over the weights of the stage before, where it gives any."""
        if stage and stage.weights:
            missing = self.model.load_state_dict(stage.weights, strict=False).missing_keys
            assert not set(missing) & {name for name, _ in self.model.named_parameters()}, missing

    def score(self, ids: tuple[str, ...]) -> list[Scores]:
        """The method's scores of `ids` with the present weights."""
        split = PackedSplit(self.store, ids, self.device, resample_to=self.hp.resample_to)
        return score_videos(self.method, self.judged, split, self.hp, self.config.precision)

    def decode(self, scores: list[Scores]) -> DecodeResult:
        """The decode search of this trial on `scores`, one per video of `score_ids`."""
        return search_decode(
            self.method.decode,
            scores,
            [stored_grid(self.store, i, self.hp.resample_to) for i in self.score_ids],
            [self.store.duration_s(i) for i in self.score_ids],
            self._judged_by(),
            start=self.method.decode_params(**self.config.decode),
            domains=self.config.decode_domains,
            settings=self.config.decode_settings,
            cross_fit=self.config.cross_fit,
            seed=self.config.fold_seed,
        )

    def _judged_by(self) -> Objective:
        """What the detections of the selection videos are judged by with the present weights."""
        label_length = partial(
            label_length_s, self.method, self.judged, self.split, self.hp, self.made_labels
        )
        config = self.config
        return objective_of(
            self.store, self.score_ids, config.score_on, config.metric, label_length
        )

    def _report(self, losses: dict[str, float], decoded: DecodeResult | None) -> TrialReport | None:
        if decoded is None:
            return None
        on = self.config.score_on
        metrics = {f"train/loss_{name}": value for name, value in losses.items()}
        metrics |= {f"{on}/{name}": value for name, value in decoded.metrics.items()}
        return TrialReport(
            step=self.step,
            objective=decoded.objective,
            metrics=metrics,
            decode=asdict(decoded.params),
            seconds=self.seconds,
        )

    def _wrap(self) -> nn.Module:
        bf16 = self.config.precision == "bf16"
        objective = _Objective(self.method, self.model, self.hp, bf16)
        if self.world_size == 1:
            return objective
        # Terms switched off for some epochs leave parameters without a gradient.
        return DistributedDataParallel(
            objective, forward_sync_buffers=False, find_unused_parameters=True
        )


def _build(method: Method, store: FeatureStore, hp: Any, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return method.build(store, hp)
