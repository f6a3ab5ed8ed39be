"""What a study concludes: which configuration it recommends, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ptal_ray.study.events import Event
from ptal_ray.study.view import FinalRun, StudyView

CONFIDENCE = 0.95
MEASURE = "test/mAP_avg"
VERDICTS = {
    "better": "better than the defaults",
    "tie": "not distinguishable from the defaults, which are kept",
    "defaults": "the defaults are the best found",
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its confidence interval; fractions. `low` and `high` are NaN for one value."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        said = f"{100 * self.mean:+.1f}"
        if math.isnan(self.low):
            return said
        return f"{said} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The end of a study.

    Args:
        verdict: a key of `VERDICTS`; "" where the search came to none.
        arm: the test runs of what is recommended, "best" or "default".
        found: best found minus defaults in mAP, by the search where it came to a verdict, else on
            the test split, paired by seed; None where one of them has no runs.
        on_test: whether `found` is of the test split.
    """

    verdict: str
    arm: str
    found: Interval | None
    on_test: bool

    @property
    def text(self) -> str:
        """One sentence."""
        if self.verdict == "better":
            return f"Recommended: the best found, {VERDICTS['better']} by {self.found} mAP."
        if self.verdict:
            said = f" (best found minus defaults {self.found} mAP)" if self.found else ""
            return f"Recommended: the defaults. Verdict: {VERDICTS[self.verdict]}{said}."
        if self.found is None:
            return "No verdict: the best found and the defaults have not both been tested."
        return f"Best found minus defaults on the test split: {self.found} mAP."


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's interval at `CONFIDENCE`; NaN bounds for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def conclusion(view: StudyView) -> Conclusion:
    """What the log of a study says at its end, or so far."""
    end = said_at_end(view)
    verdict = str(end.get("verdict") or "")
    default = verdict in ("tie", "defaults") or not view.runs("test", "best")
    arm = "default" if default and view.runs("test", "default") else "best"
    said = end.get("difference")
    if verdict in VERDICTS and said:
        bounds = (said.get("low"), said.get("high"))
        low, high = (math.nan if b is None else float(b) for b in bounds)
        found = Interval(mean=float(said["mean"]), low=low, high=high)
        return Conclusion(verdict=verdict, arm=arm, found=found, on_test=False)
    verdict = verdict if verdict in VERDICTS and verdict != "better" else ""
    return Conclusion(verdict=verdict, arm=arm, found=tested_difference(view), on_test=True)


def said_at_end(view: StudyView) -> Event:
    """What the search recommends: "arm", "verdict", "difference" and "arms", as far as its log has
    them."""
    end = view.end or {}
    return {**(end.get("recommended") or {}), **end, **(view.recommended or {})}


def tested_difference(view: StudyView) -> Interval | None:
    """Best found minus defaults on the test split, paired by seed; None without such a pair."""
    best, default = (_by_seed(view.runs("test", arm)) for arm in ("best", "default"))
    both = sorted(best.keys() & default.keys())
    return interval([best[s] - default[s] for s in both]) if both else None


def test_reads(view: StudyView) -> int:
    """How often a study has read the annotations of the test split: once a test run."""
    return sum(run.role == "test" for run in view.finals)


def _by_seed(runs: Sequence[FinalRun]) -> dict[int, float]:
    return {run.seed: run.metrics[MEASURE] for run in runs if MEASURE in run.metrics}
