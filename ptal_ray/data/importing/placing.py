"""The rows of a points CSV by the videos that they are of."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from ptal_ray.data.importing.agreement import Placed
from ptal_ray.data.points import PointRow
from ptal_ray.data.video_ids import same_id


@dataclass(frozen=True, kw_only=True)
class Placing:
    """What became of the rows of a points CSV.

    Args:
        points: those whose time is known.
        elsewhere: rows of other videos.
        rateless: (row, id) where the frame rate is needed and unknown.
        twice: ids that are written with and without "v_".
    """

    points: tuple[Placed, ...]
    elsewhere: tuple[PointRow, ...]
    rateless: tuple[tuple[PointRow, str], ...]
    twice: tuple[str, ...]


def place(rows: Sequence[PointRow], videos: Container[str], rates: Mapping[str, float]) -> Placing:
    """Finds the video of each row.

    Args:
        rows: of the CSV.
        videos: ids of those that points are wanted of.
        rates: frames per second by id; a row in seconds needs none.
    """
    points, elsewhere, rateless = list[Placed](), list[PointRow](), list[tuple[PointRow, str]]()
    spelled: dict[str, set[str]] = {}
    for row in rows:
        id = same_id(row.video, videos)
        if id is None:
            elsewhere.append(row)
            continue
        spelled.setdefault(id, set()).add(row.video)
        if id in rates or row.in_seconds:
            points.append(Placed(row=row, video=id, fps=rates.get(id)))
        else:
            rateless.append((row, id))
    twice = tuple(id for id, names in spelled.items() if len(names) > 1)
    return Placing(
        points=tuple(points), elsewhere=tuple(elsewhere), rateless=tuple(rateless), twice=twice
    )


def written_twice(id: str) -> str:
    """What is wrong with an id that a points CSV writes both ways."""
    return f"video {id} is there with and without v_; write one id"


def before_video(place: str, point: Placed) -> str:
    """What is wrong with a point before 0; `place` is its file and line."""
    return f"{place}: video {point.video}: point {point.row.value:g}; must be a number of 0 or more"
