"""What is here: methods, search spaces, datasets, the newest studies, and a command to go on."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptal_ray.data.datasets import DATASETS, data_root, embedded, import_hint
from ptal_ray.space.catalog import SpaceFile, catalog, title
from ptal_ray.storage.place import kept
from ptal_ray.study.recent import RecentStudy, recent_studies

STUDIES = 5  # the newest, that are shown
_OPEN = ("interrupted", "unfinished", "not started")


def overview(storage: Path) -> dict[str, Any]:
    """What is here, JSON-able.

    Args:
        storage: folder of the studies.

    Raises:
        ConfigError: a file of search_spaces/ is no search space.
    """
    spaces, studies = catalog(), recent_studies(kept(storage), STUDIES)
    present = _present()
    methods = dict.fromkeys(space.method for space in spaces)
    return {
        "methods": [{"name": name, "title": title(name)} for name in methods],
        "spaces": [
            {"name": space.name, "method": space.method, "dataset": space.dataset}
            for space in spaces
        ],
        "data": str(os.environ.get("PTAL_DATA") or data_root()),
        "datasets_present": present,
        "datasets_missing": [name for name in DATASETS if name not in present],
        "studies": [asdict(study) | {"directory": str(study.directory)} for study in studies],
        "next": _next(spaces, present, studies),
    }


def show(found: dict[str, Any]) -> str:
    """`found` as text."""
    lines = ["Methods"]
    lines += [f"  {method['name']:<18}{method['title']}" for method in found["methods"]]
    lines += ["", "Search spaces, METHOD_DATASET (any: METHOD --dataset NAME)"]
    lines += _spaces(found["spaces"], found["datasets_present"])
    lines += ["", f"Datasets in {found['data']}"]
    lines.append(f"  present           {' '.join(found['datasets_present']) or 'none'}")
    lines.append(f"  missing           {' '.join(found['datasets_missing']) or 'none'}")
    lines += ["", "Newest studies"]
    lines += [f"  {study['state']:<18}{study['directory']}" for study in found["studies"]]
    lines += [] if found["studies"] else ["  none"]
    return "\n".join([*lines, "", "Next", f"  {found['next']}"])


def _spaces(spaces: Sequence[dict[str, str]], present: Sequence[str]) -> list[str]:
    """A line for each method with its datasets, those present first."""
    found: dict[str, list[str]] = defaultdict(list)
    for space in sorted(spaces, key=lambda s: (not s["dataset"], s["dataset"] not in present)):
        start = space["method"].rpartition(".")[2]
        name = "any" if space["name"] == start else space["name"].removeprefix(f"{start}_")
        found[space["method"]].append(name)
    return [f"  {f'{name}:':<18}{' '.join(found[name])}" for name in sorted(found)]


def _present() -> list[str]:
    """The stores on this machine and embedded datasets, in the order of `DATASETS`, then others."""
    stored = {path.parent.name for path in data_root().glob("*/store.json")} | set(embedded())
    known = [name for name in DATASETS if name in stored]
    return known + sorted(stored - set(known))


def _next(
    spaces: Sequence[SpaceFile], present: Sequence[str], studies: Sequence[RecentStudy]
) -> str:
    """The command to go on with: resume the newest study, search the user's own data, then what was
    not searched, or import."""
    if studies and studies[0].state in _OPEN:
        return f"python -m ptal_ray.search --resume {shlex.quote(str(studies[0].directory))}"
    known = {study.dataset for study in studies} | set(DATASETS)
    if own := [name for name in present if name not in known]:
        return f"python -m ptal_ray.search METHOD --dataset {shlex.quote(own[0])}"
    searched = {study.space for study in studies}
    left = [s for s in spaces if s.dataset in present and s.name not in searched]
    # first those that need no import, then the quickest
    left.sort(key=lambda space: (space.dataset not in embedded(), space.steps))
    if left:
        return f"python -m ptal_ray.search {left[0].name}"
    missing = next((name for name in DATASETS if name not in present), "NAME")
    return import_hint(missing).split("`")[1]
