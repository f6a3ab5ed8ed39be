"""Which videos belong together, as those of one person; the folds of a race do not part them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ptal_ray.data.findings import Problem
from ptal_ray.data.user_files import read_csv
from ptal_ray.data.video_ids import bare
from ptal_ray.errors import DataError

GroupSource = Path | re.Pattern[str]
PERSON = re.compile(r"(?:^|[_-])(?:user|subject|person)[_-]?(\d+)(?![0-9])", re.IGNORECASE)
_SHOWN = 5  # videos in one message


def group_source(text: str) -> GroupSource:
    """The value of a flag: a CSV, or a regular expression with one capture group.

    Raises:
        ValueError: it is neither.
    """
    if text.lower().endswith(".csv") or Path(text).is_file():
        return Path(text)
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"{text!r} is not a regular expression ({error}); give one, or a file FILE.csv"
        ) from error
    if found.groups != 1:
        raise ValueError(
            f"{text!r} has {found.groups} capture groups; one is needed, e.g. 'user([0-9]+)', or "
            "a file FILE.csv"
        )
    return found


def video_groups(
    source: GroupSource | None, ids: Sequence[str]
) -> tuple[dict[str, str], list[Problem]]:
    """The group of each video, and what is wrong.

    Args:
        source: a CSV with columns video and group, or a regular expression that finds the group
            in an id; None for no groups.
        ids: of the videos.

    Raises:
        DataError: the CSV cannot be read, lacks a column, or gives a video two groups.
    """
    if source is None:
        return {}, []
    if isinstance(source, Path):
        given, place, fix = _listed(source), str(source), "add them"
        found = {id: given.get(bare(id), "") for id in ids}
    else:
        place, fix = (
            f"--group {source.pattern}",
            "correct it, or give a CSV with columns video,group",
        )
        found = {id: match[1] or "" if (match := source.search(id)) else "" for id in ids}
    missing = [id for id, group in found.items() if not group]
    if not missing:
        return found, []
    more = ", ..." if len(missing) > _SHOWN else ""
    text = (
        f"{place}: no group of {len(missing)} of {len(ids)} videos: "
        f"{', '.join(missing[:_SHOWN])}{more}; {fix}"
    )
    return found, [Problem(text, "videos without a group")]


def in_both_splits(videos: Iterable[tuple[str, str]]) -> list[str]:
    """The groups of which one video trains and another one tests.

    Args:
        videos: subset and group of each; an empty group is none.
    """
    subsets: dict[str, set[str]] = {}
    for subset, group in videos:
        subsets.setdefault(group, set()).add(subset)
    return sorted(group for group, found in subsets.items() if group and len(found) > 1)


def _listed(path: Path) -> Mapping[str, str]:
    """Group by video id, without "v_", of a CSV."""
    columns, rows = read_csv(path)
    if missing := {"video", "group"} - set(columns):
        raise DataError(
            f"{path}: not a CSV with columns video and group: no column "
            f"{', '.join(sorted(missing))} in the first line"
        )
    found: dict[str, str] = {}
    for line, row in rows:
        id, group = bare(row["video"]), row["group"]
        if found.setdefault(id, group) != group:
            raise DataError(
                f"{path}:{line}: video {row['video']}: group {group!r}, given before as "
                f"{found[id]!r}; keep one line of it"
            )
    return found
