"""The runs after a search and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.study.event_types import FinalReport
from ptal_ray.training.config import TrialConfig, TrialReport

FOLD, DEPLOY = "fold", "deploy"  # roles of data without a test split, see `untested.py`


@dataclass(frozen=True, kw_only=True)
class FinalConfig:
    """One training run after the search.

    Args:
        role: "reselect" or "test"; without a test split "fold" and "deploy", see `untested.py`.
        arm: "candidate1", ... (best first) for reselect; else "best" and "default".
        seed: the repeat: 0, 1, ..., of role "fold" the fold; the run itself is seeded with the
            study's seed + 1 + this number, so that a configuration is not evaluated with the seed
            that selected it.
        config: what to train.
    """

    role: str
    arm: str
    seed: int
    config: TrialConfig

    @property
    def folder(self) -> str:
        """The folder of its files, relative to the study directory."""
        repeat = "fold" if self.role == "fold" else "seed"
        return f"final/{self.arm}_{repeat}{self.seed}"

    @property
    def deployable(self) -> bool:
        """Whether it writes a model file: if it is trained on the whole training split."""
        return self.role in ("test", "deploy")


def final_event(
    directory: Path, run: FinalConfig, report: TrialReport, detections: Mapping[str, Segments]
) -> FinalReport:
    """Writes the detections of a finished final run and returns its event.

    Args:
        directory: the study directory.
        run: the run.
        report: its last report.
        detections: of the scored videos, by id; written in the ActivityNet layout.
    """
    classes = FeatureStore.open(run.config.store).info.classes
    path = directory / run.folder / "detections.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_detections(path, detections, classes)
    return FinalReport(
        **_ran(run), decode=report.decode, step=report.step, metrics=report.metrics,
        detections=f"{run.folder}/detections.json",
    )  # fmt: skip


def diverged_event(run: FinalConfig, message: str) -> FinalReport:
    """The event of a run that diverged: the reason, and no metrics."""
    return FinalReport(
        **_ran(run), decode=run.config.decode, step=run.config.report_steps[-1], metrics={},
        message=message,
    )  # fmt: skip


def _ran(run: FinalConfig) -> dict[str, Any]:
    return {
        "arm": run.arm, "role": run.role, "seed": run.seed, "run_seed": run.config.seed,
        "params": run.config.train,
    }  # fmt: skip
