"""Statistics of a recorded search: differences of configurations, and noise of a score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ptal_ray.benchmarks.scorer import sealed_values
from ptal_ray.benchmarks.table import Floats, read_table

_LINES = {
    "objective": "objective of the defaults on the folds: {:.1%}",
    "test": "test mAP of the defaults: {:.1%}",
    "spread": "standard deviation of the objective over configurations, without noise: {:.1%}",
    "noise": "standard deviation of one cell, without what all configurations share: {:.1%}",
    "noise_of_defaults": "standard deviation of the defaults over their cells: {:.1%}",
    "best_gain": "test mAP of the best configuration minus that of the defaults: {:.1%}",
    "best_decode_gain": "the same of the defaults with the best decode setting: {:.1%}",
    "better": "share of the configurations that are better than the defaults on test: {:.0%}",
    "seconds": "mean seconds of a training: {:.1f}",
}


def facts(folder: Path) -> dict[str, Any]:
    """The statistics of a table; the objective is that of the last step at the default setting.

    Returns:
        The keys of `_LINES`, fractions of mAP except `seconds`; "sizes": configurations, folds,
        seeds, steps, settings; "rank_correlation": by report step, Spearman's over configurations
        with the last step in the same cell, the mean of the cells.

    Raises:
        DataError: the table is missing, unfinished, damaged or of another version.
    """
    table = read_table(folder)
    test = sealed_values(folder, table)
    last = table.objective[..., -1, 0].reshape(len(table.objective), -1)  # (C, cells)
    apart = last - last.mean(axis=0)
    noise = float(apart.var(axis=1, ddof=1).mean())
    truth = float(apart.mean(axis=1).var(ddof=1)) - noise / last.shape[1]
    return {
        "sizes": list(table.objective.shape),
        "objective": float(last[0].mean()),
        "test": float(test[0, 0]),
        "spread": max(truth, 0.0) ** 0.5,
        "noise": noise**0.5,
        "noise_of_defaults": float(last[0].std(ddof=1)),
        "best_gain": float(test[:, 0].max() - test[0, 0]),
        "best_decode_gain": float(test[0].max() - test[0, 0]),
        "better": float((test[1:, 0] > test[0, 0]).mean()),
        "seconds": float(table.seconds[..., -1].mean()),
        "rank_correlation": {
            int(step): _rank_correlation(table.cross_fitted[..., row], table.cross_fitted[..., -1])
            for row, step in enumerate(table.steps[:-1])
        },
    }


def fact_lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    """The statistics of a table as text."""
    sizes = "{} configurations, {} folds, {} seeds, {} steps, {} decode settings"
    yield f"{name}: " + sizes.format(*found["sizes"])
    for key, line in _LINES.items():
        yield "  " + line.format(found[key])
    for step, value in found["rank_correlation"].items():
        yield f"  rank correlation of step {step} with the last one: {value:.2f}"


def _rank_correlation(early: Floats, last: Floats) -> float:
    """Mean over the cells of Spearman's correlation over configurations; (C, F, S) each.

    Cells in which all configurations are equal are ignored.
    """
    pairs = zip(early.reshape(len(early), -1).T, last.reshape(len(last), -1).T, strict=True)
    found = [stats.spearmanr(a, b).statistic for a, b in pairs if np.ptp(a) and np.ptp(b)]
    return float(np.mean(found)) if found else 0.0
