"""The pictures of a report. Colours are those of Okabe and Ito, told apart by everyone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.reporting.text import objective_axis
from ptal_ray.storage.user_directories import writable_cache
from ptal_ray.storage.whole import whole
from ptal_ray.study.view import StudyView, Summary

with writable_cache():  # in which Matplotlib lists the fonts
    import matplotlib

    matplotlib.use("Agg")

    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
LANES = (GREEN, BLUE, ORANGE)
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 120,
    "svg.hashsalt": "ptal_ray", "svg.fonttype": "none", "figure.constrained_layout.use": True,
}  # fmt: skip
MOST_CLASSES = 12  # rows of a timeline


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes <name>.png and <name>.svg."""
    with plt.rc_context(STYLE):
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
        if done := view.complete:
            best = np.maximum.accumulate([100 * (t.objective or 0) for t in done])
            axes.step([t.number for t in done], best, where="post", c=GREEN, label="best so far")
        _label(axes, "trial", objective_axis(view), f"Optimisation history\n{subtitle}")
        axes.legend(frameon=False, fontsize=8)
        return figure


def importance(shares: Mapping[str, float], subtitle: str) -> Figure:
    """Bars of the share of variance each parameter explains."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.9 + 0.28 * len(shares)))
        names = list(shares)[::-1]
        axes.barh(names, [100 * shares[n] for n in names], color=BLUE, height=0.7)
        _label(axes, "share of the variance, %", "", f"Hyperparameter importance\n{subtitle}")
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
        _label(axes, "tIoU threshold", "test mAP, %", f"mAP by threshold\n{subtitle}")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return figure


def timeline(
    rows: Mapping[str, Segments],
    classes: Sequence[str],
    video: str,
    duration_s: float,
    subtitle: str,
) -> Figure:
    """A band a class of a video, in it a lane for the ground truth and for each configuration.

    Args:
        rows: segments by name, the ground truth first; paler detections have lower scores.
        classes: class names.
        video: its id.
        duration_s: seconds.
        subtitle: ends the title.
    """
    labels = np.concatenate([s.label for s in rows.values()])
    present, number = np.unique(labels, return_counts=True)
    bands = present[np.argsort(-number, kind="stable")][:MOST_CLASSES]
    step = 0.8 / len(rows)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9.0, 1.3 + 0.2 * len(rows) * len(bands)))
        for (name, segments), colour in zip(rows.items(), LANES, strict=False):
            lane = -0.4 + step * (list(rows).index(name) + 0.5)
            top = max([1e-9, *segments.score.tolist()])
            for band, label in enumerate(bands):
                _bars(axes, segments.take(segments.label == label), band + lane, step, colour, top)
        axes.set_yticks(range(len(bands)), [classes[label] for label in bands])
        axes.set_ylim(len(bands) - 0.5, -0.5)
        axes.set_xlim(0, duration_s)
        axes.hlines(np.arange(len(bands) - 1) + 0.5, 0, duration_s, color=GREY, lw=0.4)
        _label(axes, "seconds", "", f"{video}\n{subtitle}")
        looks = [Patch(color=c, label=n) for n, c in zip(rows, LANES, strict=False)]
        figure.legend(
            handles=looks, loc="outside lower center", ncols=len(rows), frameon=False, fontsize=8
        )
        return figure


def data_statistics(instances: Mapping[str, Segments], classes: Sequence[str], name: str) -> Figure:
    """Durations of the instances of each split, and their number by class.

    Args:
        instances: all of them, by split.
        classes: class names.
        name: of the data set.
    """
    plain = name.replace("$", r"\$")
    looks = list(zip(instances.items(), (BLUE, ORANGE), strict=False))
    lengths = {subset: s.end_s - s.start_s for subset, s in instances.items()}
    every = np.concatenate(list(lengths.values()))
    low, high = (every.min(), every.max()) if len(every) else (1.0, 1.0)
    with plt.rc_context(STYLE):
        height = max(3.4, 0.9 + 0.22 * len(classes))
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, height))
        edges = np.geomspace(max(low, 1e-3), max(high, low * 1.01, 2e-3), 31)
        counts = np.stack(
            [np.bincount(s.label, minlength=len(classes)) for s in instances.values()]
        )
        order = np.argsort(counts.sum(axis=0), kind="stable")
        for row, ((subset, _), colour) in enumerate(looks):
            left.hist(lengths[subset], bins=edges, color=colour, alpha=0.6, label=subset)
            place = np.arange(len(order)) + 0.4 * row - 0.2
            right.barh(place, counts[row][order], height=0.4, color=colour)
        left.set_xscale("log")
        left.legend(frameon=False)
        names = [classes[label].replace("$", r"\$") for label in order]  # $ would begin a formula
        right.set_yticks(range(len(order)), names)
        _label(left, "seconds of an instance", "instances", f"Durations\n{plain}")
        _label(right, "instances", "", f"Instances by class\n{plain}")
        return figure


def save_as(figure: Figure, path: Path) -> None:
    """Writes one picture, of the type that the name says.

    Raises:
        ConfigError: no picture has such a name.
        DataError: the file exists or cannot be written.
    """
    known = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.lstrip(".").lower() not in known:
        raise ConfigError(f"--plot {path}: a picture's name ends in one of {', '.join(known)}")
    if os.path.lexists(path):
        raise DataError(f"{path}: already exists and is not replaced; choose another name")
    try:
        with plt.rc_context(STYLE), whole(path) as beside:
            figure.savefig(beside, format=path.suffix.lstrip(".").lower())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        plt.close(figure)


def _bars(axes: Axes, segments: Segments, y: float, height: float, colour: str, top: float) -> None:
    for start, end, score in zip(segments.start_s, segments.end_s, segments.score, strict=True):
        alpha = 0.3 + 0.7 * max(0.0, float(score)) / top
        axes.barh(y, end - start, left=start, height=0.8 * height, color=colour, alpha=alpha, lw=0)


def _label(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    lines = [line.strip() for line in title.splitlines()]
    axes.set_title("\n".join(line for line in lines if line), loc="left", fontsize=9)
