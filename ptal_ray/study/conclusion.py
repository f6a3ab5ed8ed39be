"""The conclusion of a study: the recommended configuration and the confidence in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ptal_ray.study.cross_validation import GATE, cross_validated
from ptal_ray.study.event_types import FinalReport, Recommendation
from ptal_ray.study.view import StudyView
from ptal_ray.training.selection import called, main_figure

CONFIDENCE = 0.95
MEASURE = "test/mAP_avg"
NUM_VIDEOS = "test/num_videos"
VERDICTS = {
    "better": "better than the defaults",
    "tie": "not distinguishable from the defaults, which are kept",
    "defaults": "the defaults are the best found",
}
NOT_COMPARED = "the search ended before another configuration was compared with the defaults"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its confidence interval; fractions. `low` and `high` are NaN for one value."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Interval:
        """The interval with the "mean", "low" and "high" of a mapping."""
        return Interval(mean=plain["mean"], low=plain["low"], high=plain["high"])

    @property
    def bounds(self) -> str:
        """ "[low, high]" in %; "" without bounds."""
        return "" if math.isnan(self.low) else f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} {self.bounds}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The end of a study.

    Args:
        verdict: a key of `VERDICTS`; "" if the search has none.
        compared: whether the search compared the best found with the defaults.
        arm: arm of the final runs of the recommended configuration, "best" or "default".
        found: if the search has a verdict, the configuration that it compared with the defaults
            minus the defaults, in mAP. Else recommended minus defaults on the test split, paired by
            seed; without a test split on folds of the training split, paired by fold. None if one
            of them has no runs.
        on_test: whether `found` was measured on the test split.
        unit: of `found`: "mAP", "pure-hit mAP" or "points score".
        name: of what is recommended where the verdict is "better", and of what was compared with
            the defaults where it is "tie".
    """

    verdict: str
    arm: str
    found: Interval | None
    on_test: bool
    name: str = ""
    compared: bool = True
    unit: str = "mAP"

    @property
    def text(self) -> str:
        """One sentence."""
        if self.verdict == "better":
            return f"Recommended: {self.name}, {VERDICTS['better']} by {self.found} {self.unit}."
        if self.verdict == "tie" and not self.compared:
            return f"Recommended: the defaults; {NOT_COMPARED}."
        if self.verdict == "tie":
            said = f" (difference {self.found} {self.unit})" if self.found else ""
            verdict = f"{tie_text(self.name)}, which are kept{said}"
            return f"Recommended: the defaults. Verdict: {verdict}."
        if self.verdict:
            return f"Recommended: the defaults. Verdict: {VERDICTS[self.verdict]}."
        if self.found is None:
            return (
                "No verdict: the recommended configuration and the defaults have not both been "
                "tested."
            )
        where = "the test split" if self.on_test else "folds of the training split"
        return f"Recommended minus defaults on {where}: {self.found} {self.unit}."


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's interval at `CONFIDENCE`; NaN bounds for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def conclusion(view: StudyView) -> Conclusion:
    """The conclusion from the log of a study, finished or not."""
    best = recommended(view)
    verdict = best.verdict if best else ""
    role = "test" if view.has_test else "deploy"
    default = verdict in ("tie", "defaults") or not view.runs(role, "best")
    arm = "default" if default and view.runs(role, "default") else "best"
    unit = objective_unit(view)
    if best and verdict in VERDICTS and best.difference:
        bounds = (best.difference.get("low"), best.difference.get("high"))
        low, high = (math.nan if b is None else float(b) for b in bounds)
        found = Interval(mean=float(best.difference["mean"]), low=low, high=high)
        compared = best.difference.get("cells", 1) > 0
        return Conclusion(
            verdict=verdict, arm=arm, found=found if compared else None, on_test=False,
            name=compared_name(view) if verdict == "tie" else better_name(best.trial),
            compared=compared, unit=unit,
        )  # fmt: skip
    verdict = verdict if verdict in VERDICTS and verdict != "better" else ""
    paired = tested_difference(view) if view.has_test else cross_validated_difference(view)
    unit = called(test_figure(view)) if view.has_test else unit
    return Conclusion(verdict=verdict, arm=arm, found=paired, on_test=view.has_test, unit=unit)


def objective_unit(view: StudyView) -> str:
    """What the trials of a study maximise: "mAP" or "points score"."""
    by_points = view.study.space.get("selection", {}).get("metric") == "points"
    return "points score" if by_points else "mAP"


def better_name(trial: int | None) -> str:
    """What a search calls its recommendation if that is better than the defaults.

    Args:
        trial: the first one of the recommended arm; None for that of the defaults.
    """
    tuned = "the defaults with tuned decoding"
    return tuned if trial is None else f"the configuration of trial {trial}"


def compared_name(view: StudyView) -> str:
    """What a race that keeps the defaults calls the configuration of its `difference`: the trial of
    the finalist, or without a pair of runs of it and the defaults, their tuned decoding. "the
    best found" in logs of earlier versions."""
    ended = [t for t in view.trials if t.stage == GATE and t.state != "running" and not t.crashed]
    plain = {t.cell for t in ended if t.arm == 0}
    arms = {t.arm for t in ended if t.arm and t.cell in plain}
    if arms:
        return f"trial {min(t.number for t in view.trials if t.arm == min(arms))}"
    found = recommended(view)
    tuned = found and found.arms and found.difference.get("cells")
    return better_name(None) if tuned else "the best found"


def tie_text(name: str) -> str:
    """That the configuration `name`, see `compared_name`, is not distinguishable from the defaults;
    without a full stop."""
    verb = "are" if name == better_name(None) else "is"
    return f"{name} {verb} not distinguishable from the defaults"


def recommended(view: StudyView) -> Recommendation | None:
    """The recommendation of the search, from its own event or from the end event of the log."""
    if view.recommended or view.end is None:
        return view.recommended
    return view.end.recommendation


def tested_difference(view: StudyView) -> Interval | None:
    """Recommended minus defaults on the test split, paired by seed; None without such a pair."""
    return difference(view, "best", "default")


def difference(view: StudyView, one: str, other: str) -> Interval | None:
    """One arm minus another on the test split in its main figure, paired by seed; None without such
    a pair."""
    name = test_figure(view)
    ours, theirs = (_by_seed(view.runs("test", arm), name) for arm in (one, other))
    both = sorted(ours.keys() & theirs.keys())
    return interval([ours[s] - theirs[s] for s in both]) if both else None


def cross_validated_difference(view: StudyView) -> Interval | None:
    """Recommended minus defaults on folds of the training split, paired; None without a pair or
    with a test split."""
    found = cross_validated(view)
    return interval(found.differences) if found and found.differences else None


def test_reads(view: StudyView) -> int:
    """How often a study has read the annotations of the test split: once per test run, and once per
    report of a trial that was scored on it."""
    reports = (report for trial in view.trials for report in trial.reports)
    return sum(run.role == "test" for run in view.finals) + sum(
        MEASURE in report.metrics for report in reports
    )


def test_figure(view: StudyView) -> str:
    """Name of the metric that stands for the test runs of a study, see `main_figure`: pure-hit mAP
    if the test videos have no annotated segment."""
    names = [name for run in view.finals if run.role == "test" for name in run.metrics]
    return main_figure(names, "test")


def _by_seed(runs: Sequence[FinalReport], name: str) -> dict[int, float]:
    return {run.seed: run.metrics[name] for run in runs if name in run.metrics}
