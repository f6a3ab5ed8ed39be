"""What the papers report, beside what studies here reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ptal_ray.errors import DataError
from ptal_ray.methods.method import load, with_values
from ptal_ray.reporting.text import finished
from ptal_ray.study.conclusion import Interval, conclusion, interval
from ptal_ray.study.paper_compat import on_test, remark
from ptal_ray.study.view import StudyView

NUMBERS = "paper_numbers.yaml"
NEAR = 0.01  # mAP, a fraction: a difference that is not one
_BADGES = ("reproduced", "not reproduced", "not comparable", "not run")


@dataclass(frozen=True, kw_only=True)
class PaperNumber:
    """One number of a table.

    Args:
        method, dataset: as studies name them.
        table: where it is printed.
        average: the thresholds that are averaged, "0.10-0.70".
        value: mAP in %.
        protocol: what the method is taught by.
        issues: what is known to stand between it and ours; "" for nothing.
        share: of the training videos that are annotated; None for points.
    """

    method: str
    dataset: str
    table: str
    average: str
    value: float
    protocol: str
    issues: str = ""
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A number of a paper and ours.

    Args:
        paper: of the paper.
        ours: mean over the seeds of all studies and its interval, a fraction; None without a study.
        badge: "reproduced", "not reproduced", "not comparable" or "not run".
        why: of a badge that is not comparable, or that the test split selected, or how points were
            drawn anew; "" else.
    """

    paper: PaperNumber
    ours: Interval | None
    badge: str
    why: str = ""


def numbers_file() -> Path:
    """The registry that comes with the package or lies in its checkout."""
    package = Path(__file__).parent.parent
    return next(
        (p for p in (package / NUMBERS, package.parent / "reports" / NUMBERS) if p.is_file()),
        package / NUMBERS,
    )


def read_numbers(path: Path) -> list[PaperNumber]:
    """The registry of the papers' numbers.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return [PaperNumber(**row) for row in yaml.safe_load(path.read_text("utf-8"))]
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise DataError(f"{path}: no registry of numbers ({error}); restore it") from error


def compare(numbers: Sequence[PaperNumber], views: Sequence[StudyView]) -> list[Compared]:
    """Each number with a badge; a study on simulated or other features is not comparable."""
    return [_compared(number, views) for number in numbers]


def _compared(number: PaperNumber, views: Sequence[StudyView]) -> Compared:
    same = [v for v in views if _is(v, number.method, number.dataset) and _share(v) == number.share]
    same = [v for v in same if not on_test(v)] or same
    same = [v for v in same if not v.study.points] or same
    real = [v for v in same if v.study.features == "real"]
    if ours := _mean(real, number.average):
        least = max(NEAR, (ours.high - ours.low) / 2 if ours.high == ours.high else 0.0)
        reached = ours.mean >= number.value / 100 - least
        drawn = real[0].study.points and f"points drawn anew: {real[0].study.points}"
        why = "; ".join(filter(None, [remark(real[0]), drawn]))
        return Compared(paper=number, ours=ours, badge=_BADGES[0 if reached else 1], why=why)
    if same:
        features = ", ".join(sorted({v.study.features for v in same}))
        other = _mean(same, number.average)
        why = f"features: {features}" if not real else "without this average"
        return Compared(paper=number, ours=other, badge=_BADGES[2], why=why)
    return Compared(paper=number, ours=None, badge=_BADGES[3])


def _is(view: StudyView, method: str, dataset: str) -> bool:
    return (view.study.method, view.study.dataset) == (method, dataset)


def _share(view: StudyView) -> float | None:
    """Share of annotated videos; None for methods that are taught by points."""
    kind = load(view.study.method).train_params
    train: dict[str, Any] = dict(view.study.defaults["train"]) | {
        k: v for k, v in view.study.space.get("train", {}).items() if not isinstance(v, dict)
    }
    known = {part.name for part in fields(kind)}  # of an earlier version it may have others
    own = with_values(kind, {k: v for k, v in train.items() if k in known}).labelled()
    return own.fraction if own else None


def _mean(views: Sequence[StudyView], average: str) -> Interval | None:
    """Over the seeds of what each study recommends."""
    values = []
    for view in views:
        runs = finished(view, "test", conclusion(view).arm)
        name = f"test/mAP_avg_{average}"
        values += [run.metrics[name] for run in runs if name in run.metrics]
    return interval(values) if values else None
