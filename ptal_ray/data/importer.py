"""Import of the plain layout: a folder of <id>.npy, an ActivityNet-style JSON, a points CSV."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptal_ray.data.annotations import AnnotatedVideo, Annotations, read_annotations, same_id
from ptal_ray.data.datasets import note as dataset_note
from ptal_ray.data.feature_files import FeatureFolder, open_features, snippets_of
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.points import no_points, point_rows, simulate_points, sorted_points
from ptal_ray.data.staging import check_free
from ptal_ray.data.statistics import judge
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.survey import AUTO, survey
from ptal_ray.data.types import FloatArray, Grid, Points, Segments
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import DataError

COVERED = (0.8, 1.25)  # share of a video that its features must cover
STRAY = 0.05  # share of instances behind their video, or points of unknown videos, still believed


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is imported.

    Args:
        name: of the dataset.
        features: folder of <id>.npy, each (T, D).
        annotations: the JSON.
        fps: frames per second that `stride` and `window` count.
        stride: frames from snippet to snippet.
        window: frames that a snippet sees; 0 means `stride`.
        points: the CSV, or None to simulate points.
        point_fps: frames per second of the CSV's frame numbers: one value, or a CSV with columns
            video and fps; None takes the fps that the annotations give each video.
        simulated_points: "gaussian" or "uniform"; used without `points`.
        seed: of simulated points.
        lists: "train" and "test" -> files of video ids, in place of the subsets of the JSON.
        drop_invalid: leave out instances whose end is not after their start or whose start is
            negative.
        transpose: whether the feature files hold (D, T).
        note: a line on the data; empty takes what is known of `name`.
    """

    name: str
    features: Path
    annotations: Path
    fps: float
    stride: float
    window: float = 0.0
    points: Path | None = None
    point_fps: float | Path | None = None
    simulated_points: str = ""
    seed: int = 0
    lists: dict[str, Path] | None = None
    drop_invalid: bool = False
    transpose: bool = False
    note: str = ""

    @property
    def grid(self) -> Grid:
        """Where the snippets lie: each in the middle of its window."""
        window = self.window or self.stride
        return Grid(stride_s=self.stride / self.fps, offset_s=(window - self.stride) / 2 / self.fps)


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """A video to import."""

    id: str
    subset: str
    file: Path
    duration_s: float
    instances: Segments
    points: Points


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that an import will do.

    Args:
        source: what is imported.
        classes: class names.
        videos: in the order of the annotations.
        snippets: T by id, of the videos whose feature file has a sound header.
        remarks: count by what it counts: left out, clamped.
        examples: some of what `remarks` counts.
        problems: a line each; an import needs none.
        dtype: of the store; "auto" before the features are read.
    """

    source: Source
    classes: tuple[str, ...]
    videos: tuple[PlannedVideo, ...]
    snippets: dict[str, int]
    remarks: dict[str, int]
    examples: dict[str, list[str]]
    problems: tuple[str, ...]
    dtype: str = AUTO


def import_dataset(
    source: Source,
    out: Path,
    *,
    dtype: str = AUTO,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Imports `source` into a store at `out`, one video in memory at a time.

    Features are read twice: to see what is wrong with them and which type they need, and to be
    written.

    Args:
        source: what is imported.
        out: directory of the store.
        dtype: "float16", "float32", or "auto": float16 where it loses nothing that matters.
        replace: whether an existing store at `out` gives way.
        progress: called with videos done and videos in all, in each reading.

    Returns:
        What was done.

    Raises:
        DataError: the first problem, and how many more there are.
    """
    check_free(out, replace)
    plan = examine(source, dtype=dtype, progress=progress)
    if plan.problems:
        more = len(plan.problems) - 1
        rest = f" (and {more} more: run validate with the same flags)" if more else ""
        raise DataError(plan.problems[0] + rest)
    with StoreWriter(
        out, name=source.name, classes=plan.classes, grid=source.grid, features="real",
        note=_note(source), dtype=plan.dtype, replace=replace, measured=True,
    ) as writer:  # fmt: skip
        for done, video in enumerate(plan.videos):
            progress(done, len(plan.videos))
            writer.add(
                video.id,
                subset=video.subset,
                features=open_features(video.file, source.transpose),
                duration_s=video.duration_s,
                annotations=video.instances,
                points=video.points,
            )
    progress(len(plan.videos), len(plan.videos))
    return plan


def examine(
    source: Source,
    *,
    dtype: str = AUTO,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """The plan of an import after all features were read, with everything that is wrong.

    Raises:
        DataError: annotations, points or the folder of features cannot be read at all.
    """
    plan = plan_import(source)
    remarks, problems = Remarks(), list(plan.problems)
    remarks.update(plan.remarks)
    remarks.examples |= plan.examples
    dtype = survey(_sound_features(plan, progress), dtype, problems, remarks)
    return replace(plan, dtype=dtype, problems=tuple(problems), remarks=dict(remarks),
                   examples=remarks.examples)  # fmt: skip


def _sound_features(
    plan: Plan, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, FloatArray]]:
    for done, video in enumerate(plan.videos):
        progress(done, len(plan.videos))
        if video.id in plan.snippets:
            yield video.id, open_features(video.file, plan.source.transpose)
    progress(len(plan.videos), len(plan.videos))


def plan_import(source: Source) -> Plan:
    """Reads annotations, points and the headers of all feature files.

    Raises:
        DataError: annotations, points or the folder of features cannot be read at all.
    """
    annotations = read_annotations(
        source.annotations, lists=source.lists, drop_invalid=source.drop_invalid
    )
    problems, remarks = list(annotations.problems), Remarks()
    remarks.update(annotations.left_out)
    points = _points(source, annotations, problems, remarks)
    folder = FeatureFolder(source.features)
    videos = [_planned(folder, video, points.get(video.id)) for video in annotations.videos]
    pointless = [v for v in videos if v.subset == "train" and not len(v.points)]
    remarks["training videos without a point, left out"] += len(pointless)
    kept = [v for v in videos if v.subset == "test" or len(v.points)]
    _check_instances(source, kept, problems, remarks)
    problems += folder.problems(kept)
    lengths = _check_features(source, kept, problems)
    remarks["points behind the last snippet, which training takes for them"] += sum(
        int((v.points.time_s >= source.grid.seconds(lengths[v.id])).sum())
        for v in kept if v.id in lengths
    )  # fmt: skip
    for subset in ("train", "test"):
        if not any(v.subset == subset for v in kept):
            text = (
                f"{source.annotations}: the {subset} split is empty; check the subsets, the "
                "points, or pass --train-list and --test-list"
            )
            problems.append(Problem(text, "splits without a video"))
    judge(kept, annotations.classes, problems, remarks)
    return Plan(
        source=source,
        classes=annotations.classes,
        videos=tuple(kept),
        snippets=lengths,
        remarks={reason: n for reason, n in remarks.items() if n},
        examples=remarks.examples,
        problems=tuple(problems),
    )


def _planned(folder: FeatureFolder, video: AnnotatedVideo, points: Points | None) -> PlannedVideo:
    return PlannedVideo(
        id=video.id,
        subset=video.subset,
        file=folder.file(video.id),
        duration_s=video.duration_s,
        instances=video.instances,
        points=no_points() if points is None or video.subset == "test" else points,
    )


def _points(
    source: Source, annotations: Annotations, problems: list[str], remarks: Remarks
) -> dict[str, Points]:
    """Points by video id, from the CSV or simulated."""
    if source.points is not None:
        return _read_points(source, source.points, annotations, problems, remarks)
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
    problems: list[str],
    remarks: Remarks,
) -> dict[str, Points]:
    rows, wrong = point_rows(path, annotations.classes)
    problems += wrong
    videos = {video.id: video for video in annotations.videos}
    rates = _rates(source, videos)
    found: dict[str, list[tuple[float, int]]] = {}
    unknown = []
    for row in rows:
        id = same_id(row.video, videos)
        if id is None:
            unknown.append(row)
            continue
        if videos[id].subset == "test":
            remarks["points of test videos, left out"] += 1
            continue
        rate, duration_s = rates.get(id), videos[id].duration_s
        if rate is None and not row.in_seconds:
            text = f"{path}:{row.line}: the frame rate of {id} is unknown; pass --point-fps"
            problems.append(Problem(text, "points without a frame rate"))
            continue
        time_s = row.time_s(rate or 1.0)
        if time_s > duration_s + source.grid.stride_s:
            text = (
                f"{path}:{row.line}: point {row.value:g} is at {time_s:.2f} s, outside video {id} "
                f"of {duration_s:.2f} s; correct it or --point-fps (here {rate})"
            )
            problems.append(Problem(text, "points outside their video", time_s - duration_s))
            continue
        remarks["points less than a snippet behind their video, clamped"] += time_s > duration_s
        found.setdefault(id, []).append((min(time_s, duration_s), row.label))
    remarks["points of videos that are not imported, left out"] += len(unknown)
    if len(unknown) > STRAY * len(rows):
        text = (
            f"{path}:{unknown[0].line}: video {unknown[0].video!r} is not among those of "
            f"{source.annotations}, as {len(unknown)} of {len(rows)} points; the ids must agree"
        )
        problems.append(Problem(text, "points of unknown videos"))
    return {id: sorted_points(_distinct(id, pairs, remarks)) for id, pairs in found.items()}


def _distinct(id: str, pairs: list[tuple[float, int]], remarks: Remarks) -> list[tuple[float, int]]:
    """Each point once: one that is there twice would stand for two instances."""
    distinct = list(dict.fromkeys(pairs))
    if twice := len(pairs) - len(distinct):
        remarks.note("points that are there twice, left out", f"video {id}: {twice}", twice)
    return distinct


def _rates(source: Source, videos: dict[str, AnnotatedVideo]) -> dict[str, float]:
    """Frames per second of the points' frame numbers, by video id."""
    if isinstance(source.point_fps, Path):
        return _read_rates(source.point_fps, videos)
    if source.point_fps is not None:
        return dict.fromkeys(videos, source.point_fps)
    return {id: video.fps for id, video in videos.items() if video.fps}


def _read_rates(path: Path, videos: dict[str, AnnotatedVideo]) -> dict[str, float]:
    try:
        rows = [row for _, row in read_csv(path)[1]]
        pairs = [(same_id(row["video"], videos), float(row["fps"])) for row in rows]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a CSV with columns video and fps ({error}); it or a number is needed "
            "as --point-fps"
        ) from error
    return {id: fps for id, fps in pairs if id is not None and fps > 0}


def _check_instances(
    source: Source, videos: Iterable[PlannedVideo], problems: list[str], remarks: Remarks
) -> None:
    """Instances may reach beyond their video, as published ones do; many that do are a mistake."""
    total = behind = beyond = 0
    for video in videos:
        total += len(video.instances)
        behind += int((video.instances.start_s >= video.duration_s).sum())
        beyond += int((video.instances.end_s > video.duration_s).sum())
    remarks["instances that reach beyond their video, kept as annotated"] += beyond
    if behind > STRAY * total:
        text = (
            f"{source.annotations}: {behind} of {total} instances start behind the end of their "
            "video; segments and durations must be seconds"
        )
        problems.append(Problem(text, "instances behind their video"))


def _check_features(
    source: Source, videos: Iterable[PlannedVideo], problems: list[str]
) -> dict[str, int]:
    """T of every video whose feature file has a sound header."""
    known = {video.id: video for video in videos}
    expected = {id: video.duration_s / source.grid.stride_s for id, video in known.items()}
    lengths = snippets_of(known, expected, source.transpose, problems)
    for video in (known[id] for id in lengths):
        window_s = (source.window or source.stride) / source.fps
        covered_s = (lengths[video.id] - 1) * source.grid.stride_s + window_s
        low, high = COVERED[0] * video.duration_s, COVERED[1] * video.duration_s + window_s
        if not low <= covered_s <= high:
            text = (
                f"{video.file}: {lengths[video.id]} snippets cover {covered_s:.1f} s of a video of "
                f"{video.duration_s:.1f} s; {low:.1f} to {high:.1f} s are allowed: check --fps "
                f"({source.fps:g}) and --stride ({source.stride:g}), or extract the features again"
            )
            off = abs(covered_s / video.duration_s - 1)
            problems.append(Problem(text, "features of another length than their video", off))
    return lengths


def _clip(instances: Segments, duration_s: float) -> Segments:
    """Instances cut to the video; those behind its end are gone."""
    inside = instances.take(instances.start_s < duration_s)
    return replace(inside, end_s=np.minimum(inside.end_s, duration_s))


def _note(source: Source) -> str:
    given = source.note or dataset_note(source.name)
    if source.points is None:
        points = f"points simulated: {source.simulated_points}, seed {source.seed}"
        return f"{given}; {points}" if given else points
    return given
