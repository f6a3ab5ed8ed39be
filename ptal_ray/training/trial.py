"""The training loop: `while not trial.done: report = trial.advance()`."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptal_ray.data.types import Scores, Segments
from ptal_ray.methods.method import DecodeParams, Pseudo, StageResult, Step
from ptal_ray.space.domain import Scalar
from ptal_ray.training.batches import batches_of
from ptal_ray.training.checkpoint import read_checkpoint, write_checkpoint
from ptal_ray.training.config import TrialReport
from ptal_ray.training.decoding import DecodeResult
from ptal_ray.training.label_quality import label_length_s
from ptal_ray.training.learner import Learner
from ptal_ray.training.loss_sums import Curves, LossSums
from ptal_ray.training.model_file import model_file, write_model
from ptal_ray.training.scoring import best_decoding, scores_of
from ptal_ray.training.select_on_test import with_test
from ptal_ray.training.task import Task
from ptal_ray.training.worker import Worker


class Trial:
    """A network in training and its position in the schedule. `stages.start` makes one.

    Args:
        task: the task.
        worker: this worker of the trial.
        before: the result of the earlier stage; None if there is none, or it has no steps.
        seconds: that the earlier stage has taken.

    Other code may read its parts but not change them: `learner` (network, optimiser), `batches`
        (order, crops and labels of the training videos), `step`, `seconds` (training and scoring so
        far, with earlier stages), `first_step_at` (time.time()), and, of the last report, `scores`
        and `detections` of the videos to score, on rank 0.

    Raises:
        ConfigError: the batch cannot be divided among the workers.
    """

    def __init__(
        self,
        task: Task,
        worker: Worker | None = None,
        before: StageResult | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.task, self.worker = task, worker or Worker()
        self.learner = Learner(task, self.worker, before)
        self.batches = batches_of(task, self.worker, before)
        self.step = 0
        self.seconds = seconds
        self.first_step_at: float | None = None
        self.losses: Curves = {}  # since the previous report
        self.scores: list[Scores] = []
        self.detections: dict[str, Segments] = {}

    @property
    def done(self) -> bool:
        """Whether the last report step is reached."""
        return self.step >= self.task.config.report_steps[-1]

    @property
    def made_labels(self) -> Pseudo | None:
        """The labels made before training, (V, ...); None if the method has none."""
        return self.batches.labels.tables if self.task.method.labels else None

    def advance(self) -> TrialReport:
        """Train to the next report step, score the selection videos and report.

        Raises:
            DivergedError: a loss or a score is not finite.
        """
        began = time.perf_counter()
        losses = self.train_until(next(s for s in self.task.config.report_steps if s > self.step))
        decoded = self._score()
        self.seconds += time.perf_counter() - began
        report = self.worker.from_first(self._report(losses, decoded) if decoded else None)
        assert report is not None
        return report

    def train_until(self, step: int) -> dict[str, float]:
        """Train until `step` steps are done; returns the mean of each term of the loss.

        Raises:
            DivergedError: one is not finite.
        """
        sums = LossSums(self.step, step)
        while self.step < step:
            terms = self.train_step()
            sums.add(self.step, terms)
        means, self.losses = sums.read(self.worker.world_size)
        return means

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step; returns the detached terms of the loss and their total."""
        self.learner.objective.train()
        rows = self.batches.plan.rows(self.step)
        if self.task.method.refresh is not None:
            stale = self.batches.labels.stale(rows, self.step)
            if stale.any():
                self.refresh(rows, stale)
        batch = self.batches.training(self.step, rows)
        terms = self.learner.take_step(batch, self.step_context())
        self.step += 1
        if self.first_step_at is None:
            self.first_step_at = time.time()
        return terms

    def refresh(self, rows: NDArray[np.int64], stale: NDArray[np.bool_]) -> None:
        """Refresh the labels of the stale rows of the global batch, the same on every worker."""
        method, labels, model = self.task.method, self.batches.labels, self.learner.model
        assert method.refresh is not None
        mine = self.worker.mine(rows)
        due = mine[self.worker.mine(stale)]
        if len(due):
            model.eval()
            with torch.no_grad():
                fresh = method.refresh(model, self.batches.whole(due), self.task.hp)
            labels.store(due, fresh)
            model.train()
        if not self.worker.alone:
            labels.exchange(rows, mine, self.worker.world_size)
        labels.renew(rows[stale], self.step)

    def step_context(self) -> Step:
        """The inputs of the next step's loss; its randomness depends only on seed and step."""
        generator = torch.Generator(self.worker.device)
        seed = np.random.SeedSequence([self.task.config.seed, 3, self.step]).generate_state(1)[0]
        generator.manual_seed(int(seed))
        return Step(
            index=self.step,
            epoch=self.step / self.batches.plan.steps_per_epoch,
            generator=generator,
            split_pseudo=self.batches.labels.tables,
            memory=self.batches.memory,
            rank=self.worker.rank,
            world_size=self.worker.world_size,
        )

    def score(self, ids: tuple[str, ...]) -> list[Scores]:
        """The scores of `ids` with the current weights, on rank 0.

        Raises:
            DivergedError: one is not finite.
        """
        return scores_of(self.task, self.worker, self.learner.judged, ids, self.step)

    def save(self, path: Path) -> None:
        """Write the whole state to `path` atomically."""
        state = {
            **self.learner.state_dict(),
            "labels": self.batches.labels.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        write_checkpoint(path, self._identity, state)

    def load(self, path: Path) -> None:
        """Restore the state that `save` wrote.

        Raises:
            DataError: the file is unreadable or belongs to another configuration.
        """
        state = read_checkpoint(path, self._identity, self.worker.device)
        self.learner.load_state_dict(state)
        self.batches.labels.load_state_dict(state["labels"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save_model(self, path: Path, decode: dict[str, Scalar]) -> None:
        """Write the model file for detections in new videos with the parameters `decode`,
        atomically."""
        write_model(path, model_file(self.task, self.learner.judged, decode))

    @property
    def _identity(self) -> str:
        """The configuration with the content hash of its store, because study and data may be
        moved."""
        content = self.task.store.info.content_hash
        return replace(self.task.config, stages="", store=content).to_json()

    def _score(self) -> DecodeResult[DecodeParams] | None:
        """Score the selection videos and decode the scores, on rank 0."""
        self.scores = self.score(self.task.score_ids)
        on_test = self.score(self.task.store.ids("test")) if self.task.config.select_on_test else []
        if self.worker.rank:
            return None
        label_length = partial(
            label_length_s, self.task, self.learner.judged, self.batches.split, self.made_labels
        )
        result = best_decoding(self.task, self.scores, label_length)
        self.detections = result.detections
        return with_test(self.task, result, on_test) if on_test else result

    def _report(self, losses: dict[str, float], decoded: DecodeResult[DecodeParams]) -> TrialReport:
        on = self.task.config.score_on
        metrics = {f"train/loss_{name}": value for name, value in losses.items()}
        metrics |= {f"{on}/{name}": value for name, value in decoded.metrics.items()}
        metrics |= decoded.on_test
        if self.task.score_ids:
            metrics[f"{on}/num_videos"] = float(len(self.task.score_ids))
        return TrialReport(
            step=self.step,
            objective=decoded.objective,
            metrics=metrics,
            decode=asdict(decoded.params),
            seconds=self.seconds,
            settings=tuple(value for _, value in decoded.table),
            losses=self.losses,
        )
