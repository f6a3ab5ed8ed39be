"""Saved views of MLflow's table of runs, and the links that open them.

A view is a tag of the experiment in a format that MLflow keeps to itself; `TRIED` names the version
in which it was seen to work. For another version the link opens the table without the view.
"""

from __future__ import annotations

import base64
import json
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ptal_ray.study.conclusion import MEASURE, NUM_VIDEOS
from ptal_ray.study.event_types import StudyStart

TRIED = (3, 17)  # major and minor version of MLflow
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
KIND = ("mlflow.experimentKind", "custom_model_development")  # the experiment opens on its runs
_TAG = "mlflow.sharedViewState."
_TABLE = "workflowType=machine_learning"


@dataclass(frozen=True, kw_only=True)
class View:
    """One saved view.

    Args:
        key: in its link.
        name: shown by MLflow.
        search: filter of the runs.
        order: column by which they are sorted, the largest first.
        columns: of the table, as MLflow spells them, in this order.
    """

    key: str
    name: str
    search: str
    order: str
    columns: tuple[str, ...]

    def tag(self, time_ms: int) -> tuple[str, str]:
        """Name and value of the tag of the experiment that holds the view.

        Args:
            time_ms: when it was made, milliseconds since 1970.
        """
        state = {
            "searchFilter": self.search,
            "orderByKey": self.order,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": {name: _width(name) for name in self.columns},
            "viewMaximized": False,
            "runListHidden": False,
        }
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        whole = {"name": self.name, "createdAt": time_ms, "updatedAt": time_ms}
        return _TAG + self.key, json.dumps(whole | {"state": f"deflate;{packed}"})


def leaderboard() -> View:
    """One row a study and tested configuration."""
    return View(
        key="ptal-leaderboard",
        name="Leaderboard",
        search="tags.kind = 'arm' and tags.role = 'test'",
        order=_column("metrics", MEASURE),
        columns=(  # the first ones fit beside MLflow's assistant
            *(_column("tags", name) for name in ("method", "dataset")),
            *(_column("metrics", MEASURE + end) for end in ("", "_low", "_high")),
            _column("tags", "verdict"),
            *(_column("metrics", name) for name in (f"{MEASURE}_sd", "seeds", NUM_VIDEOS)),
            *(_column("tags", name) for name in ("arm", "study")),
        ),
    )


def trials(study: str, study_id: str, searched: Sequence[str]) -> View:
    """The trials of one study.

    Args:
        study: its name.
        study_id: of its log.
        searched: names of its searched train parameters.
    """
    return View(
        key=f"ptal-trials-{study_id[:12]}",
        name=f"Trials of {study}",
        search=f"tags.study = '{study}' and tags.kind = 'trial'",
        order=_column("metrics", "objective"),
        columns=(
            _column("metrics", "objective"),
            _column("tags", "recommended"),
            _column("metrics", "objective_last"),
            *(_column("params", f"train.{name}") for name in searched),
            _column("tags", "state"),
        ),
    )


def of_study(study: StudyStart, study_id: str) -> tuple[View, View]:
    """The two views of a study, from its first event."""
    train = study.space.get("train", {})
    searched = [name for name, domain in train.items() if isinstance(domain, dict)]
    return leaderboard(), trials(study.study, study_id, searched)


def links(server: str, experiment_id: str, study_id: str, tried: bool) -> dict[str, str]:
    """Addresses of the views by what they show.

    Args:
        server: tracking URI without credentials.
        experiment_id: of the study.
        study_id: of its log.
        tried: whether this MLflow is known to open saved views.
    """
    base = server.rstrip("/") if server.startswith("http") else LOCAL_UI
    table = f"{base}/#/experiments/{experiment_id}/runs?"
    keys = {"leaderboard": "ptal-leaderboard", "trials": f"ptal-trials-{study_id[:12]}"}
    if not tried:
        return {"runs": table + _TABLE}
    return {what: f"{table}viewStateShareKey={key}&{_TABLE}" for what, key in keys.items()}


def opens_views(server: str) -> bool:
    """Whether the user interface of a tracking URI is of the version in `TRIED`."""
    import mlflow

    version = mlflow.__version__
    if server.startswith("http"):
        try:
            with urllib.request.urlopen(f"{server.rstrip('/')}/version", timeout=3) as answer:
                version = answer.read(40).decode("utf-8", "replace")
        except OSError:  # it does not say
            return False
    return version.split(".")[:2] == [str(part) for part in TRIED]


def _width(column: str) -> int:
    """Pixels in which the name of a column can be read."""
    return 34 + 7 * len(column.partition("`")[2].rstrip("`"))


def _column(section: str, name: str) -> str:
    return f"{section}.`{name}`"
