"""The configuration of a trial and its reports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from ptal_ray.space.domain import Domain, Scalar

# With `select_on_test`: the setting that the selection fold chose, and its test objective.
DECODE_SETTING = "val/decode_setting"
TEST_AS_VALIDATED = "test/mAP_avg_validated"


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that determines a trial.

    Args:
        method: method name.
        store: path of the feature store.
        train: every train parameter.
        decode: every decode parameter: the start of the decode search, or the frozen values.
        decode_domains: decode parameters searched at each report; empty freezes `decode`.
        decode_settings: settings tried in a decode search, the start included.
        cross_fit: tune decode on one half of the videos and score on the other.
        seed: of weights, order, crops and losses.
        report_steps: ascending optimiser steps at which the trial reports; the last ends it.
        fit_on: "fit" (training split without the selection fold) or "train" (all of it).
        score_on: "val" (the selection fold), "test", or "none": a model is trained and not
            evaluated.
        val_fraction, fold_seed: the selection fold; with `num_folds` only the seed counts.
        num_folds, fold: the selection fold is part `fold` of `num_folds` disjoint ones, see
            `splits.kfold`; 0 for one by `val_fraction`.
        precision: "fp32" or "bf16" (autocast).
        select_on_test: also score the test split at each report, tune the decode parameters on it
            and report its value as the objective; for --protocol paper-compat.
        metric: "map", or "points" to evaluate with held-out points; test videos with annotated
            instances are always evaluated by mAP.
        points: how new points of training videos are drawn, see `data.drawn_points`; "" for those
            of the store.
        stages: folder in which results of earlier stages are stored for other trials; empty to
            store none.
    """

    method: str
    store: str
    train: dict[str, Scalar]
    decode: dict[str, Scalar]
    decode_domains: dict[str, Domain]
    decode_settings: int
    cross_fit: bool
    seed: int
    report_steps: tuple[int, ...]
    fit_on: str = "fit"
    score_on: str = "val"
    val_fraction: float = 0.2
    fold_seed: int = 0
    precision: str = "fp32"
    stages: str = ""
    num_folds: int = 0
    fold: int = 0
    metric: str = "map"
    select_on_test: bool = False
    points: str = ""

    def to_json(self) -> str:
        """One JSON object; `from_json` reads it back."""
        plain = asdict(self) | {
            "decode_domains": {k: d.as_dict() for k, d in self.decode_domains.items()}
        }
        for name in ("select_on_test", "points"):
            if not plain[name]:  # the form in earlier versions
                del plain[name]
        return json.dumps(plain, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> TrialConfig:
        """The config that `to_json` wrote."""
        plain = json.loads(text)
        plain["report_steps"] = tuple(plain["report_steps"])
        plain["decode_domains"] = {
            k: Domain.from_dict(d) for k, d in plain["decode_domains"].items()
        }
        return TrialConfig(**plain)


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """The report of a trial at a report step.

    Args:
        step: optimiser steps done.
        objective: the value that the search maximises, a fraction.
        metrics: "val/mAP_avg", "val/mAP_0.50", ... (of points: "val/points_score",
            "val/hit_mAP", ...), "train/loss_total", "train/loss_<term>".
        decode: the decode parameters chosen on the selection videos (or the frozen ones).
        seconds: training and scoring time so far, in all processes that ran the trial.
        settings: objective of every decode setting on all scored videos, the default first.
        losses: [step, mean of the steps since the point before] by term, since the last report.
    """

    step: int
    objective: float
    metrics: dict[str, float]
    decode: dict[str, Scalar]
    seconds: float
    settings: tuple[float, ...] = ()
    losses: dict[str, list[list[float]]] = field(default_factory=dict)
