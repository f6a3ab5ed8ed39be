"""The point labels of an import: read from a CSV, or simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.importing.agreement import Placed, agreement
from ptal_ray.data.importing.annotations import Annotations
from ptal_ray.data.importing.placing import before_video, place, written_twice
from ptal_ray.data.importing.plan import STRAY, Source
from ptal_ray.data.point_noise import drawn_anew
from ptal_ray.data.points import PointRow, point_rows, sorted_points
from ptal_ray.data.rates import Frames, RateSource, given_frames
from ptal_ray.data.types import Points
from ptal_ray.data.video_ids import same_id


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
            found[video.id] = drawn_anew(
                video.id, video.instances, video.duration_s, kind=source.simulated_points,
                noise=source.point_noise, seed=source.seed, classes=len(annotations.classes),
            )  # fmt: skip
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
        if time_s < 0:
            text = before_video(f"{path}:{point.row.line}", point)
            problems.append(Problem(text, "points that are not numbers of 0 or more"))
            continue
        snippet_s = frames[point.video].grid.stride_s if point.video in frames else 0.0
        if time_s > duration_s + snippet_s:
            rate = "" if point.row.in_seconds else f" or --point-fps (here {point.fps})"
            text = (
                f"{path}:{point.row.line}: point {point.row.value:g} is at {time_s:.2f} s, outside "
                f"video {point.video} of {duration_s:.2f} s; correct it{rate}"
            )
            problems.append(Problem(text, "points outside their video", time_s - duration_s))
            continue
        remarks["points less than a snippet after the end of their video, clamped"] += (
            time_s > duration_s
        )
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
) -> Sequence[Placed]:
    """The points whose time is known: of training videos, and of test videos where no annotated
    instance judges these."""
    given = given_rates(source.point_fps or "json", annotations)
    rates_at = source.point_fps if isinstance(source.point_fps, Path) else source.annotations
    segments = any(len(v.instances) for v in annotations.videos if v.subset == "test")
    taken = {v.id for v in annotations.videos if v.subset == "train" or not segments}
    placing = place(rows, taken, {id: frames.fps for id, frames in given.items()})
    for id in placing.twice:
        problems.append(Problem(f"{source.points}: {written_twice(id)}", "ids that differ by v_"))
    for row, id in placing.rateless:
        text = (
            f"{source.points}:{row.line}: the frame rate of {id} is unknown; pass --point-fps "
            f"with a number or a CSV, or write it in {rates_at}"
        )
        problems.append(Problem(text, "points without a frame rate"))
    unknown = _unknown(placing.elsewhere, source, annotations, remarks)
    if len(unknown) > STRAY * len(rows):
        text = (
            f"{source.points}:{unknown[0].line}: video {unknown[0].video!r} is not among those of "
            f"{source.annotations}, as {len(unknown)} of {len(rows)} points; the ids must agree"
        )
        problems.append(Problem(text, "points of unknown videos"))
    return placing.points


def _unknown(
    rows: Sequence[PointRow], source: Source, annotations: Annotations, remarks: Remarks
) -> list[PointRow]:
    """Those of `rows` whose video is not left out for a reason, which is noted of the others."""
    reasons = {
        "points of excluded videos, left out": source.exclude,
        "points of videos of no chosen subset, left out": annotations.unchosen,
        "points of test videos, left out": {v.id for v in annotations.videos},
    }
    unknown = []
    for row in rows:
        found = (reason for reason, ids in reasons.items() if same_id(row.video, ids))
        if reason := next(found, None):
            remarks[reason] += 1
        else:
            unknown.append(row)
    remarks["points of videos that are not imported, left out"] += len(unknown)
    return unknown


def _distinct(id: str, pairs: list[tuple[float, int]], remarks: Remarks) -> list[tuple[float, int]]:
    """Each point once: one that is there twice would stand for two instances."""
    distinct = list(dict.fromkeys(pairs))
    if twice := len(pairs) - len(distinct):
        remarks.note("duplicate points, left out", f"video {id}: {twice}", twice)
    return distinct


def given_rates(rates: RateSource, annotations: Annotations) -> dict[str, Frames]:
    """The frames that a flag gives the videos of `annotations`, by id."""
    stated = {video.id: video.frames for video in annotations.videos}
    return given_frames(rates, stated, lambda id: same_id(id, stated))
