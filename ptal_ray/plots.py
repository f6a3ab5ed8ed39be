"""The pictures of a report. Colours are those of Okabe and Ito, told apart by everyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptal_ray.data.types import Segments
from ptal_ray.tracking import StudyView, Summary

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "ptal_ray", "savefig.dpi": 120, "figure.constrained_layout.use": True,
}  # fmt: skip
MOST_CLASSES = 12  # rows of a timeline


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes <name>.png and <name>.svg."""
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def optimisation_history(view: StudyView, subtitle: str) -> Figure:
    """Objective of each trial's last report, and the best complete one so far."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.4))
        looks = {"complete": (BLUE, "o"), "pruned": (GREY, "x"), "failed": (ORANGE, "v")}
        for state, (colour, marker) in looks.items():
            shown = [t for t in view.trials if t.state == state and t.finite]
            axes.scatter(
                [t.number for t in shown], [100 * (t.objective or 0) for t in shown],
                c=colour, marker=marker, s=24, label=f"{state} ({view.counts[state]})",
            )  # fmt: skip
        done = [t for t in view.trials if t.state == "complete" and t.finite]
        if done:
            best = np.maximum.accumulate([100 * (t.objective or 0) for t in done])
            axes.step([t.number for t in done], best, where="post", c=GREEN, label="best so far")
        _label(axes, "trial", "mAP on the selection fold, %", f"Optimisation history{subtitle}")
        axes.legend(frameon=False, fontsize=8)
        return figure


def importance(shares: Mapping[str, float], subtitle: str) -> Figure:
    """Bars of the share of variance each parameter explains."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.28 * len(shares)))
        names = list(shares)[::-1]
        axes.barh(names, [100 * shares[n] for n in names], color=BLUE, height=0.7)
        _label(axes, "share of the variance, %", "", f"Hyperparameter importance{subtitle}")
        return figure


def per_threshold(arms: Mapping[str, Mapping[float, Summary]], subtitle: str) -> Figure:
    """mAP against the tIoU threshold, with the standard deviation over seeds."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.4))
        for (arm, values), colour, marker in zip(
            arms.items(), (BLUE, ORANGE, GREEN), "os^", strict=False
        ):
            axes.errorbar(
                list(values), [100 * s.mean for s in values.values()],
                yerr=[100 * (s.sd or 0) for s in values.values()],
                c=colour, marker=marker, ms=4, capsize=3, label=arm,
            )  # fmt: skip
        _label(axes, "tIoU threshold", "test mAP, %", f"Per-threshold mAP{subtitle}")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return figure


def timeline(
    truth: Segments,
    found: Segments,
    classes: Sequence[str],
    video: str,
    duration_s: float,
    subtitle: str,
) -> Figure:
    """Instances above, detections below; darker detections have higher scores."""
    present, number = np.unique(np.concatenate([truth.label, truth.label]), return_counts=True)
    rows = present[np.argsort(-number, kind="stable")][:MOST_CLASSES]
    most = max(1, 2 * len(truth))
    found = found.take(slice(most))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.0, 1.1 + 0.5 * len(rows)))
        top = max(float(found.score.max()) if len(found) else 1.0, 1e-9)
        for row, label in enumerate(rows):
            _bars(axes, truth.take(truth.label == label), row + 0.2, GREEN, None)
            _bars(axes, found.take(found.label == label), row - 0.2, BLUE, top)
        axes.set_yticks(range(len(rows)), [classes[label] for label in rows])
        axes.set_xlim(0, duration_s)
        title = f"{video}: ground truth (green), {len(found)} best detections (blue){subtitle}"
        _label(axes, "seconds", "", title)
        return figure


def _bars(axes: Axes, segments: Segments, y: float, colour: str, top: float | None) -> None:
    for start, end, score in zip(segments.start_s, segments.end_s, segments.score, strict=True):
        alpha = 0.9 if top is None else 0.15 + 0.75 * score / top
        axes.barh(y, end - start, left=start, height=0.36, color=colour, alpha=alpha, lw=0)


def _label(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=9)
