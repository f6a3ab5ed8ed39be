"""The newest studies of a folder and their states, without reading their whole logs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ptal_ray.errors import DataError
from ptal_ray.study.event_types import StudyEnd, event_of

_TAIL = 1 << 16  # bytes at the end of a log, where its last event usually is


@dataclass(frozen=True, kw_only=True)
class RecentStudy:
    """A study directory.

    Args:
        name: of the study.
        directory: its directory.
        space: name of its search space.
        method: the searched method.
        dataset: its dataset.
        state: "done", "failed" (no trial finished), "interrupted", "unfinished" (running, or
            killed), or "not started".
    """

    name: str
    directory: Path
    space: str
    method: str
    dataset: str
    state: str


def recent_studies(storage: Path, most: int) -> list[RecentStudy]:
    """The `most` newest studies of a folder, newest first; other entries are ignored."""
    found = sorted(storage.glob("*/study.json"), key=lambda path: -path.stat().st_mtime)
    studies: list[RecentStudy] = []
    for path in found:
        if len(studies) == most:
            break
        if (study := _study(path)) is not None:
            studies.append(study)
    return studies


def _study(path: Path) -> RecentStudy | None:
    try:
        plain = json.loads(path.read_text("utf-8"))
        return RecentStudy(
            name=path.parent.name,
            directory=path.parent,
            space=plain["space_name"],
            method=plain["space"]["method"],
            dataset=plain["space"]["dataset"],
            state=_state(path.with_name("events.jsonl")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of another program, or half copied


def _state(log: Path) -> str:
    """The state in the last event of a log."""
    if not log.exists():
        return "not started"
    try:
        last = event_of(json.loads(_last_line(log)), str(log))
    except (ValueError, AttributeError, DataError):
        return "unfinished"
    if not isinstance(last, StudyEnd):
        return "unfinished"
    return "failed" if last.state == "done" and last.message else last.state


def _last_line(log: Path) -> bytes:
    with log.open("rb") as file:
        size, tail = os.fstat(file.fileno()).st_size, _TAIL
        while True:
            file.seek(max(0, size - tail))
            end = file.read().rstrip(b"\n")
            if b"\n" in end or tail >= size:
                return end.rpartition(b"\n")[2]
            tail *= 4
