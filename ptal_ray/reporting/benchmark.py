"""The final benchmark of a study: its test runs on the test videos, and how sure their difference
is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptal_ray.errors import DataError
from ptal_ray.reporting.resampling import Resampled, p_text, resample
from ptal_ray.reporting.tested import Tested, read_tested
from ptal_ray.reporting.text import finished
from ptal_ray.study.conclusion import tested_difference
from ptal_ray.study.view import StudyView


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The test runs of a study.

    Args:
        tested: their detections and the instances; None where their videos are not here.
        missing: why not.
        resampled: their mAP on resamples of seeds and videos, by arm.
        difference: recommended minus defaults in fractions of mAP, or of pure-hit mAP if the test
            videos have no annotated segment, JSON-able: "mean", "low" and
            "high" (95 %), "p" (null over seeds alone) and "over", what varied: "seeds and videos",
            or "seeds" where the videos are not here or have no segments; None where not both were
            tested.
    """

    tested: Tested | None
    missing: str
    resampled: Resampled | None
    difference: dict[str, Any] | None

    @property
    def bounds(self) -> str:
        """The interval of the difference in mAP points, and what it is; "" for none."""
        found = self.difference
        if found is None or math.isnan(found["low"]):
            return ""
        return f"[{100 * found['low']:.2f}, {100 * found['high']:.2f}] ({sureness(found)})"


def read_benchmark(view: StudyView, study_dir: Path) -> Benchmark:
    """Reads the test runs of a study.

    Args:
        view: the study.
        study_dir: its directory, which holds what the test runs detected.
    """
    try:
        tested, missing = read_tested(view, study_dir), ""
    except DataError as error:
        tested, missing = None, str(error)
    resampled = None
    if tested:
        arms = [arm for arm in view.arms("test") if finished(view, "test", arm)]
        runs = {arm: tested.runs(arm) for arm in arms if tested.runs(arm)}
        resampled = resample(runs, tested.averaged)
    return Benchmark(
        tested=tested, missing=missing, resampled=resampled, difference=_difference(view, resampled)
    )


def sureness(difference: Mapping[str, Any]) -> str:
    """What the interval of a `Benchmark.difference` is."""
    p = difference["p"]
    return f"95 %, over {difference['over']}" + ("" if p is None else f", {p_text(p)}")


def _difference(view: StudyView, resampled: Resampled | None) -> dict[str, Any] | None:
    if resampled and {"best", "default"} <= resampled.maps.keys():
        found, p = resampled.difference("best", "default")
        return asdict(found) | {"p": p, "over": "seeds and videos"}
    paired = tested_difference(view)
    return asdict(paired) | {"p": None, "over": "seeds"} if paired else None
