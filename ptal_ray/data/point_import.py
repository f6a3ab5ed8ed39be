"""The point labels of an import: read from a CSV, or simulated."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptal_ray.data.agreement import Placed, agreement
from ptal_ray.data.annotations import Annotations, same_id
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.plan import STRAY, Source
from ptal_ray.data.points import PointRow, point_rows, simulate_points, sorted_points
from ptal_ray.data.rates import Frames, RateSource, given_frames
from ptal_ray.data.types import Points, Segments


def imported_points(
    source: Source,
    annotations: Annotations,
    frames: Mapping[str, Frames],
    problems: list[str],
    remarks: Remarks,
) -> dict[str, Points]:
    """Points by video id, from the CSV or simulated.

    Args:
        source: what is imported.
        annotations: of its videos.
        frames: how the frames of each video are counted, by id.
        problems: takes in a line on each point that cannot be read.
        remarks: takes in what is left out or clamped.

    Raises:
        DataError: the CSV cannot be read at all.
    """
    if source.points is not None:
        return _read_points(source, source.points, annotations, frames, problems, remarks)
    found = {}
    for video in annotations.videos:
        if video.subset == "train":
            rng = np.random.default_rng([source.seed, zlib.crc32(video.id.encode())])
            inside = _clip(video.instances, video.duration_s)
            found[video.id] = simulate_points(inside, rng, source.simulated_points)
    return found


def _read_points(
    source: Source,
    path: Path,
    annotations: Annotations,
    frames: Mapping[str, Frames],
    problems: list[str],
    remarks: Remarks,
) -> dict[str, Points]:
    rows, wrong = point_rows(path, annotations.classes, source.point_columns, source.drop_labels)
    problems += wrong
    first = len(problems)
    videos = {video.id: video for video in annotations.videos}
    found: dict[str, list[tuple[float, int]]] = {}
    placed = _placed(source, rows, annotations, problems, remarks)
    for point in placed:
        time_s, duration_s = point.time_s, videos[point.video].duration_s
        assert time_s is not None  # a point without a frame rate is not placed
        snippet_s = frames[point.video].grid.stride_s if point.video in frames else 0.0
        if time_s > duration_s + snippet_s:
            rate = "" if point.row.in_seconds else f" or --point-fps (here {point.fps})"
            text = (
                f"{path}:{point.row.line}: point {point.row.value:g} is at {time_s:.2f} s, outside "
                f"video {point.video} of {duration_s:.2f} s; correct it{rate}"
            )
            problems.append(Problem(text, "points outside their video", time_s - duration_s))
            continue
        remarks["points less than a snippet behind their video, clamped"] += time_s > duration_s
        found.setdefault(point.video, []).append((min(time_s, duration_s), point.row.label))
    agreed = agreement(placed, videos, annotations.classes)
    if agreed.missed and (agreed.sound or source.allow_points):
        remarks[agreed.remark()] += agreed.missed
    elif not agreed.sound:  # a known cause explains the problems of the points
        problem = Problem(f"{path}: {agreed.problem()}", "points outside their instances")
        problems.insert(first if agreed.cause else len(problems), problem)
    return {id: sorted_points(_distinct(id, pairs, remarks)) for id, pairs in found.items()}


def _placed(
    source: Source,
    rows: Sequence[PointRow],
    annotations: Annotations,
    problems: list[str],
    remarks: Remarks,
) -> list[Placed]:
    """The points whose time is known: of training videos, and of test videos where no annotated
    instance judges these."""
    videos = {video.id: video for video in annotations.videos}
    given = given_rates(source.point_fps or "json", annotations)
    rates_at = source.point_fps if isinstance(source.point_fps, Path) else source.annotations
    excluded, unchosen = dict.fromkeys(source.exclude), dict.fromkeys(annotations.unchosen)
    segments = any(len(v.instances) for v in annotations.videos if v.subset == "test")
    placed, unknown = [], []
    for row in rows:
        id = same_id(row.video, videos)
        if id is None and same_id(row.video, excluded):
            remarks["points of excluded videos, left out"] += 1
        elif id is None and same_id(row.video, unchosen):
            remarks["points of videos of no chosen subset, left out"] += 1
        elif id is None:
            unknown.append(row)
        elif videos[id].subset == "test" and segments:
            remarks["points of test videos, left out"] += 1
        elif id not in given and not row.in_seconds:
            text = (
                f"{source.points}:{row.line}: the frame rate of {id} is unknown; pass --point-fps "
                f"with a number or a CSV, or write it in {rates_at}"
            )
            problems.append(Problem(text, "points without a frame rate"))
        else:
            fps = given[id].fps if id in given else None
            placed.append(Placed(row=row, video=id, fps=fps))
    remarks["points of videos that are not imported, left out"] += len(unknown)
    if len(unknown) > STRAY * len(rows):
        text = (
            f"{source.points}:{unknown[0].line}: video {unknown[0].video!r} is not among those of "
            f"{source.annotations}, as {len(unknown)} of {len(rows)} points; the ids must agree"
        )
        problems.append(Problem(text, "points of unknown videos"))
    return placed


def _distinct(id: str, pairs: list[tuple[float, int]], remarks: Remarks) -> list[tuple[float, int]]:
    """Each point once: one that is there twice would stand for two instances."""
    distinct = list(dict.fromkeys(pairs))
    if twice := len(pairs) - len(distinct):
        remarks.note("points that are there twice, left out", f"video {id}: {twice}", twice)
    return distinct


def given_rates(rates: RateSource, annotations: Annotations) -> dict[str, Frames]:
    """The frames that a flag gives the videos of `annotations`, by id."""
    stated = {video.id: video.frames for video in annotations.videos}
    return given_frames(rates, stated, lambda id: same_id(id, stated))


def _clip(instances: Segments, duration_s: float) -> Segments:
    """Instances cut to the video; those behind its end are gone."""
    inside = instances.take(instances.start_s < duration_s)
    return replace(inside, end_s=np.minimum(inside.end_s, duration_s))
