"""Import of the plain layout: a folder of <id>.npy, an ActivityNet-style JSON, a points CSV."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.agreement import Placed, agreement
from ptal_ray.data.annotations import AnnotatedVideo, Annotations, read_annotations, same_id
from ptal_ray.data.checks import feature_problems
from ptal_ray.data.coverage import Covered, length_problem, length_remarks
from ptal_ray.data.datasets import note as dataset_note
from ptal_ray.data.feature_files import FeatureFile, npy_of
from ptal_ray.data.normalize import Scale, training_scale
from ptal_ray.data.points import no_points, point_rows, simulate_points, sorted_points
from ptal_ray.data.rates import Frames, RateSource, given_frames, snippet_frames
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Points, Segments
from ptal_ray.errors import DataError

STRAY = 0.05  # share of instances behind their video, or points of unknown videos, still believed


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is imported.

    Args:
        name: of the dataset.
        features: folder of <id>.npy, each (T, D).
        annotations: the JSON.
        fps: frames per second that `stride` and `window` count: one value, "json" for what the
            annotations give each video, or a CSV with columns video and fps and, where videos
            differ in them, stride and window.
        stride: frames from snippet to snippet of the videos that have none of their own.
        window: frames that a snippet sees, likewise; 0 means the stride.
        points: the CSV, or None to simulate points.
        point_fps: frames per second of the CSV's frame numbers, as `fps`; None means "json".
        simulated_points: "gaussian" or "uniform"; used without `points`.
        seed: of simulated points.
        lists: "train" and "test" -> files of video ids, in place of the subsets of the JSON.
        allow_length: import features that cover another time than their video lasts.
        allow_points: import points of which many lie in no instance of their class.
        drop_invalid: leave out instances whose end is not after their start.
        note: a line on the data; empty takes what is known of `name`.
        content: what a reader made of a released folder, in the ActivityNet layout; in place of
            the JSON, whose path then only names the place in messages.
        files: video id -> its features, likewise in place of <id>.npy.
        point_columns: names of the columns of `points` where its first line has none.
        exclude: ids of videos to leave out.
        drop_labels: classes to leave out, with their instances and points.
        normalize: store z-scores of the features, by mean and spread of the training split.
    """

    name: str
    features: Path
    annotations: Path
    fps: RateSource
    stride: float = 0.0
    window: float = 0.0
    points: Path | None = None
    point_fps: RateSource | None = None
    simulated_points: str = ""
    seed: int = 0
    lists: dict[str, Path] | None = None
    allow_length: bool = False
    allow_points: bool = False
    drop_invalid: bool = False
    note: str = ""
    content: Mapping[str, Any] | None = None
    files: Mapping[str, FeatureFile] | None = None
    point_columns: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    drop_labels: frozenset[str] = frozenset()
    normalize: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """A video to import; its features should cover `feature_s` seconds."""

    id: str
    subset: str
    features: FeatureFile
    duration_s: float
    instances: Segments
    points: Points
    frames: Frames
    feature_s: float
    stated_fps: float | None

    @property
    def grid(self) -> Grid:
        """Where its snippets lie."""
        return self.frames.grid


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that an import will do, before it reads features.

    Args:
        source: what is imported.
        classes: class names.
        videos: in the order of the annotations.
        remarks: count by what it counts: left out, clamped.
        problems: a line each; an import needs none.
    """

    source: Source
    classes: tuple[str, ...]
    videos: tuple[PlannedVideo, ...]
    remarks: dict[str, int]
    problems: tuple[str, ...]


def import_dataset(
    source: Source,
    out: Path,
    *,
    dtype: str = "float16",
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Imports `source` into a store at `out`, one video in memory at a time.

    Returns:
        What was done.

    Raises:
        DataError: the first problem, and how many more there are.
    """
    plan = plan_import(source)
    if plan.problems:
        more = len(plan.problems) - 1
        rest = f" (and {more} more: run validate with the same flags)" if more else ""
        raise DataError(plan.problems[0] + rest)
    scale = _scale(plan)
    grids = {video.grid for video in plan.videos}
    shared = grids.pop() if len(grids) == 1 else None
    with StoreWriter(
        out, name=source.name, classes=plan.classes, grid=shared, features="real",
        note=_note(source), dtype=dtype, replace=replace,
    ) as writer:  # fmt: skip
        for done, video in enumerate(plan.videos):
            progress(done, len(plan.videos))
            writer.add(
                video.id,
                subset=video.subset,
                features=scale(video.features.read()),
                duration_s=video.duration_s,
                annotations=video.instances,
                points=video.points,
                grid=video.grid,
            )
    progress(len(plan.videos), len(plan.videos))
    return plan


def validate(source: Source) -> tuple[Plan, list[str]]:
    """The plan, and everything that is wrong with a source, reading all features."""
    plan = plan_import(source)
    problems = list(plan.problems)
    for video in plan.videos:
        try:
            problems += feature_problems(video.id, video.features.read(), 0)
        except DataError as error:
            if not any(str(error) in problem for problem in plan.problems):  # beyond its header
                problems.append(str(error))
    return plan, problems


def plan_import(source: Source) -> Plan:
    """Reads annotations, points and the headers of all feature files.

    Raises:
        DataError: annotations or points cannot be read at all.
    """
    annotations = read_annotations(
        source.annotations, lists=source.lists, drop_invalid=source.drop_invalid,
        content=source.content, exclude=source.exclude, drop_labels=source.drop_labels,
    )  # fmt: skip
    problems, remarks = list(annotations.problems), Counter(annotations.left_out)
    frames, unknown = snippet_frames(
        _given(source.fps, annotations), source.stride, source.window,
        source.fps if isinstance(source.fps, Path) else source.annotations,
        [video.id for video in annotations.videos],
    )  # fmt: skip
    problems += unknown
    points = _points(source, annotations, frames, problems, remarks)
    videos = [
        _planned(source, video, points.get(video.id), frames[video.id])
        for video in annotations.videos
        if video.id in frames
    ]
    pointless = [v for v in videos if v.subset == "train" and not len(v.points)]
    remarks["training videos without a point, left out"] += len(pointless)
    kept = [v for v in videos if v.subset == "test" or len(v.points)]
    _check_instances(source, kept, problems, remarks)
    lengths = _check_features(source, kept, problems, remarks)
    remarks["points behind the last snippet, which training takes for them"] += sum(
        int((v.points.time_s >= v.grid.seconds(lengths[v.id])).sum())
        for v in kept if v.id in lengths
    )  # fmt: skip
    for subset in ("train", "test"):
        if not unknown and not any(v.subset == subset for v in kept):
            problems.append(
                f"{source.annotations}: the {subset} split is empty; check the subsets, the "
                "points, or pass --train-list and --test-list"
            )
    return Plan(
        source=source,
        classes=annotations.classes,
        videos=tuple(kept),
        remarks={reason: n for reason, n in remarks.items() if n},
        problems=tuple(problems),
    )


def _given(rates: RateSource, annotations: Annotations) -> dict[str, Frames]:
    stated = {video.id: video.frames for video in annotations.videos}
    return given_frames(rates, stated, lambda id: same_id(id, stated))


def _planned(
    source: Source, video: AnnotatedVideo, points: Points | None, frames: Frames
) -> PlannedVideo:
    return PlannedVideo(
        id=video.id,
        subset=video.subset,
        features=source.files[video.id] if source.files else npy_of(source.features, video.id),
        duration_s=video.duration_s,
        instances=video.instances,
        points=no_points() if points is None or video.subset == "test" else points,
        frames=frames,
        feature_s=video.feature_s or video.duration_s,
        stated_fps=video.fps,
    )


def _scale(plan: Plan) -> Scale:
    if not plan.source.normalize:
        return Scale()
    train = (video for video in plan.videos if video.subset == "train")
    return training_scale((video.id, video.features.read()) for video in train)


def _points(
    source: Source,
    annotations: Annotations,
    frames: Mapping[str, Frames],
    problems: list[str],
    remarks: Counter[str],
) -> dict[str, Points]:
    """Points by video id, from the CSV or simulated."""
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
    remarks: Counter[str],
) -> dict[str, Points]:
    rows, wrong = point_rows(path, annotations.classes, source.point_columns, source.drop_labels)
    problems += wrong
    videos = {video.id: video for video in annotations.videos}
    rates = {id: given.fps for id, given in _given(source.point_fps or "json", annotations).items()}
    rates_at = source.point_fps if isinstance(source.point_fps, Path) else source.annotations
    found: dict[str, list[tuple[float, int]]] = {}
    unknown, placed, first = [], [], len(problems)
    excluded = dict.fromkeys(source.exclude)
    for row in rows:
        id = same_id(row.video, videos)
        if id is None and same_id(row.video, excluded):
            remarks["points of excluded videos, left out"] += 1
            continue
        if id is None:
            unknown.append(row)
            continue
        if videos[id].subset == "test":
            remarks["points of test videos, left out"] += 1
            continue
        rate, duration_s = rates.get(id), videos[id].duration_s
        if rate is None and not row.in_seconds:
            problems.append(
                f"{path}:{row.line}: the frame rate of {id} is unknown; pass --point-fps with a "
                f"number or a CSV, or write it in {rates_at}"
            )
            continue
        placed.append(Placed(row=row, video=id, fps=rate))
        time_s = row.time_s(rate or 1.0)
        snippet_s = frames[id].grid.stride_s if id in frames else 0.0
        if time_s > duration_s + snippet_s:
            problems.append(
                f"{path}:{row.line}: point {row.value:g} is at {time_s:.2f} s, outside video {id} "
                f"of {duration_s:.2f} s; correct it or --point-fps (here {rate})"
            )
            continue
        remarks["points less than a snippet behind their video, clamped"] += time_s > duration_s
        found.setdefault(id, []).append((min(time_s, duration_s), row.label))
    remarks["points of videos that are not imported, left out"] += len(unknown)
    if len(unknown) > STRAY * len(rows):
        problems.append(
            f"{path}:{unknown[0].line}: video {unknown[0].video!r} is not among those of "
            f"{source.annotations}, as {len(unknown)} of {len(rows)} points; the ids must agree"
        )
    agreed = agreement(placed, videos, annotations.classes)
    if agreed.missed and (agreed.sound or source.allow_points):
        remarks[agreed.remark()] += agreed.missed
    elif not agreed.sound:  # a known cause explains the problems of the points
        problems.insert(first if agreed.cause else len(problems), f"{path}: {agreed.problem()}")
    return {id: sorted_points(pairs) for id, pairs in found.items()}


def _check_instances(
    source: Source, videos: Iterable[PlannedVideo], problems: list[str], remarks: Counter[str]
) -> None:
    """Instances may reach beyond their video, as published ones do; many that do are a mistake."""
    total = behind = beyond = 0
    for video in videos:
        total += len(video.instances)
        behind += int((video.instances.start_s >= video.duration_s).sum())
        beyond += int((video.instances.end_s > video.duration_s).sum())
    remarks["instances that reach beyond their video, kept as annotated"] += beyond
    if behind > STRAY * total:
        problems.insert(  # explains what else is wrong
            0,
            f"{source.annotations}: {behind} of {total} instances start behind the end of their "
            "video; segments and durations must be seconds",
        )


def _check_features(
    source: Source, videos: Iterable[PlannedVideo], problems: list[str], remarks: Counter[str]
) -> dict[str, int]:
    """T of every video whose feature file has a sound header."""
    lengths: dict[str, int] = {}
    covered = []
    dim = 0
    for video in videos:
        try:
            shape = video.features.shape()
        except DataError as error:
            problems.append(f"{error} (video {video.id}, {video.subset} split)")
            continue
        if len(shape) != 2 or 0 in shape or dim not in (0, shape[1]):
            problems.append(
                f"{video.features.file}: shape {shape}; (T, {dim or 'D'}) is needed, with T >= 1 "
                "and the same D in all files"
            )
            continue
        dim = shape[1]
        lengths[video.id] = shape[0]
        covered.append(
            Covered(
                file=video.features.file,
                snippets=shape[0],
                frames=video.frames,
                expected_s=video.feature_s,
                stated_fps=video.stated_fps,
            )  # fmt: skip
        )
    if (problem := length_problem(covered, source.fps)) and not source.allow_length:
        problems.append(f"{source.features}: {problem}")
    else:
        remarks.update(length_remarks(covered))
    return lengths


def _clip(instances: Segments, duration_s: float) -> Segments:
    """Instances cut to the video; those behind its end are gone."""
    inside = instances.take(instances.start_s < duration_s)
    return replace(inside, end_s=np.minimum(inside.end_s, duration_s))


def _note(source: Source) -> str:
    parts = [source.note or dataset_note(source.name)]
    if source.points is None:
        parts.append(f"points simulated: {source.simulated_points}, seed {source.seed}")
    if source.normalize:
        parts.append("z-scores of the training split")
    return "; ".join(part for part in parts if part)
