"""A table of studies: one row each, by dataset and features, best first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptal_ray.reporting.text import finished, leaderboard_text, run_figure
from ptal_ray.storage.ownership import begins_with
from ptal_ray.storage.whole import write_whole
from ptal_ray.study.captions import num_test_videos
from ptal_ray.study.conclusion import objective_unit, test_reads
from ptal_ray.study.cross_validation import cross_validated
from ptal_ray.study.events import dumps
from ptal_ray.study.paper_compat import remark, selection_gain
from ptal_ray.study.view import StudyView, Summary, summarise
from ptal_ray.training.selection import called

_HEAD = "# Studies\n"  # of leaderboard.md
_UNTESTED = "cross-validated"


def _validated(view: StudyView) -> str:
    """What stands beside a result without a test split; a points score is no mAP."""
    unit = objective_unit(view)
    return _UNTESTED if unit == "mAP" else f"{_UNTESTED} {unit}"


def labels(view: StudyView) -> str:
    """What a study was taught by, and that the test split selected where it did: such rows compare
    with each other alone."""
    known = view.study.annotated
    kind = f"{len(known['final'])} annotated videos" if known else "points"
    kind += f" ({view.study.points})" if view.study.points else ""
    return "; ".join(filter(None, [kind, view.study.external, remark(view)]))


def leaderboard(views: Sequence[StudyView]) -> list[dict[str, Any]]:
    """A row a study with the test mAP of what it recommends, as fractions: by dataset, features and
    average, best first; behind them those of studies whose test split has no segment, with pure-hit
    mAP, and of those that have no test split, with what they are judged by on folds of the training
    split.

    The average is that of the thresholds which the study maximised: on one dataset methods may
    differ in it, and then their rows do not compare.
    """
    rows = []
    for view in views:
        tested = [run for run in view.deployable() if run.metrics]
        every = [summarise(tested), summarise(finished(view, "test", "default"))]
        name = run_figure(view, "test")
        found, default = (own.get(name) for own in every)
        folds = cross_validated(view)
        if folds:
            found, default = (folds.arms.get(arm) for arm in ("recommended", "defaults"))
        rows.append(
            {
                "study": view.study.study, "method": view.study.method,
                "dataset": view.study.dataset, "features": view.study.features,
                "average": _average(every[0]),
                "labels": labels(view),
                "trials": len(view.trials), "seeds": len(found.values) if found else 0,
                "mAP": found.mean if found else None, "sd": found.sd if found else None,
                "default_mAP": default.mean if default else None,
                "default_sd": default.sd if default else None,
                "metric": _validated(view) if folds else called(name),
                "test_videos": num_test_videos(view),
                "test_reads": test_reads(view),
                "habit": gained.text if (gained := selection_gain(view)) else "",
            }
        )  # fmt: skip

    def order(row: dict[str, Any]) -> tuple[str, str, bool, bool, str, float, str]:
        """Sort key: data and metric, then the best first."""
        value = -1.0 if row["mAP"] is None else row["mAP"]
        place = (row["dataset"], row["features"], row["metric"] != "mAP")
        return *place, not row["average"], row["average"], -value, row["study"]

    return sorted(rows, key=order)


def _average(metrics: Mapping[str, Summary]) -> str:
    """The thresholds that "test/mAP_avg" is an average of; "" before any final run."""
    whole_name, named = "test/mAP_avg", "test/mAP_avg_"
    same = (k for k, v in metrics.items() if k.startswith(named) and v == metrics[whole_name])
    return next(same, "").removeprefix(named)


def _is_leaderboard(path: Path) -> bool:
    """Whether a JSON file is a list of studies with their mAP."""
    try:
        rows = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(rows, list) and all(
        isinstance(row, dict) and {"study", "mAP"} <= row.keys() for row in rows
    )


FILES = {
    "leaderboard.md": lambda path: begins_with(path, _HEAD),
    "leaderboard.json": _is_leaderboard,
}


def write_leaderboard(rows: Sequence[dict[str, Any]], root: Path) -> None:
    """Writes leaderboard.md and leaderboard.json to folder `root`."""
    for name, text in (
        ("leaderboard.md", f"{_HEAD}\n{leaderboard_text(rows)}\n"),
        ("leaderboard.json", dumps(list(rows), indent=1) + "\n"),
    ):
        write_whole(root / name, text)
