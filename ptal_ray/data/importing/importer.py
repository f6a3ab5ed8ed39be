"""Import of features, annotations and points into a store: the plan, its checks, the writing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ptal_ray.data.choices import AUTO
from ptal_ray.data.datasets import note as dataset_note
from ptal_ray.data.features.feature_file import FeatureFile, npy
from ptal_ray.data.features.normalize import Scale, scale_sums, training_scale
from ptal_ray.data.features.precision import VideoSums
from ptal_ray.data.features.preparation import Preparation, recorded_extraction
from ptal_ray.data.features.prepared import Prepared, checked
from ptal_ray.data.findings import Problem, Remarks
from ptal_ray.data.importing.annotations import DROPPED, AnnotatedVideo, read_annotations
from ptal_ray.data.importing.coverage import Covered, length_problem, length_remarks
from ptal_ray.data.importing.feature_files import (
    FeatureFolder,
    file_problems,
    snippets_of,
    unused_recordings,
)
from ptal_ray.data.importing.groups import in_both_splits, video_groups
from ptal_ray.data.importing.plan import STRAY, Plan, PlannedVideo, Source
from ptal_ray.data.importing.point_import import given_rates, imported_points
from ptal_ray.data.importing.survey import Surveyed, survey, surveyed
from ptal_ray.data.points import no_points
from ptal_ray.data.rates import Frames, snippet_frames
from ptal_ray.data.staging import check_place
from ptal_ray.data.statistics import judge
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.store_files import STORE
from ptal_ray.data.types import FloatArray, Points
from ptal_ray.data.user_files import read_csv
from ptal_ray.errors import DataError
from ptal_ray.process.threads import Made, in_order


def import_dataset(
    source: Source,
    out: Path,
    *,
    dtype: str = AUTO,
    replace: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Imports `source` into a store at `out`, some videos a worker in memory at a time.

    Features are read once: they are checked and written in the same pass, and removed again where
    something is wrong. They are read again where "auto" turns out to need float32, and once before,
    in the training split, where they are normalized. The store is the same for any number of
    workers.

    Args:
        source: what is imported.
        out: directory of the store.
        dtype: "float16", "float32", or "auto": float16 where it loses nothing that matters.
        replace: whether an existing store at `out` gives way.
        workers: threads that read, check and round features.
        progress: called with videos done and videos in all, in each reading.

    Returns:
        What was done.

    Raises:
        DataError: the first problem, and how many more there are.
    """
    check_place(out, STORE, replace=replace)
    plan = _scaled(plan_import(source), workers, progress)
    if plan.problems:
        _refuse(_examined(plan, dtype, workers, progress))
    likely = "float32" if dtype == "float32" else "float16"
    try:
        return _written(plan, out, dtype, likely, replace, workers, progress)
    except _OtherType:  # what was written is removed
        return _written(plan, out, dtype, "float32", replace, workers, progress)


class _OtherType(Exception):
    """The features need another type than the one in which they were written."""


def _written(
    plan: Plan, out: Path, dtype: str, likely: str, replace: bool, workers: int,
    progress: Callable[[int, int], None],
) -> Plan:  # fmt: skip
    """Checks all features and writes them as `likely`.

    Raises:
        DataError: something is wrong with them.
        _OtherType: `dtype`, "auto", needs another type.
    """
    grids = {video.grid for video in plan.videos}
    with (
        StoreWriter(
            out, name=plan.source.name, classes=plan.classes,
            grid=grids.pop() if len(grids) == 1 else None, features="real", note=_note(plan),
            dtype=likely, replace=replace, measured=True, preparation=_preparation(plan),
        ) as writer,
        in_order(partial(_made_ready, plan.scale, likely), plan.videos, workers) as made,
    ):  # fmt: skip
        found = _appended(writer, plan.videos, made)
        judged = _judged(plan, dtype, _told(found, len(plan.videos), progress))
        _refuse(judged)
        if judged.dtype != likely:
            raise _OtherType
    return judged


def _made_ready(scale: Scale, dtype: str, video: PlannedVideo) -> tuple[Surveyed, Prepared | None]:
    """One reading of features: what was found, and what a store keeps where it can."""
    found, features = _surveyed(scale, video)
    if found.sums is None or not np.isfinite(found.sums.error.get(dtype, 0.0)).all():
        return found, None
    return found, checked(video.id, features, dtype)


def _appended(
    writer: StoreWriter,
    videos: Iterable[PlannedVideo],
    made: Iterable[tuple[Surveyed, Prepared | None]],
) -> Iterator[Surveyed]:
    """Writes videos until one cannot be written, after which the store will not be kept."""
    whole = True
    for video, (found, own) in zip(videos, made, strict=True):
        whole = whole and own is not None
        if whole and own is not None:
            writer.append(
                own, subset=video.subset, duration_s=video.duration_s, annotations=video.instances,
                points=video.points, grid=video.grid, group=video.group,
            )  # fmt: skip
        yield found


def _refuse(plan: Plan) -> None:
    """Raises the first problem of a plan, where there is one.

    Raises:
        DataError: the problem, and how many more there are.
    """
    if plan.problems:
        more = len(plan.problems) - 1
        rest = f" (and {more} more: run validate with the same flags)" if more else ""
        raise DataError(plan.problems[0] + rest)


def examine(
    source: Source,
    *,
    dtype: str = AUTO,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """The plan of an import after all features were read, with everything that is wrong.

    Raises:
        DataError: annotations, points or the folder of features cannot be read at all.
    """
    return _examined(_scaled(plan_import(source), workers, progress), dtype, workers, progress)


def _examined(plan: Plan, dtype: str, workers: int, progress: Callable[[int, int], None]) -> Plan:
    """The plan after all features that can be read were."""

    def found(video: PlannedVideo) -> Surveyed:
        """What one reading of a video finds."""
        return _surveyed(plan.scale, video)[0]

    readable = [video for video in plan.videos if video.id in plan.snippets]
    with in_order(found, readable, workers) as every:
        return _judged(plan, dtype, _told(every, len(readable), progress))


def _judged(plan: Plan, dtype: str, found: Iterable[Surveyed]) -> Plan:
    """The plan with what all features together show."""
    remarks, problems = Remarks(), list(plan.problems)
    remarks.update(plan.remarks)
    remarks.examples |= plan.examples
    dtype = survey(found, dtype, problems, remarks)
    return replace(plan, dtype=dtype, problems=tuple(problems), remarks=dict(remarks),
                   examples=remarks.examples)  # fmt: skip


def _surveyed(scale: Scale, video: PlannedVideo) -> tuple[Surveyed, FloatArray]:
    """One reading of features as they will be stored; a file that is damaged behind its header is
    a problem."""
    try:
        features = scale(video.features.read())
    except DataError as error:
        text = f"{error} (video {video.id}, {video.subset} split)"
        problem = Problem(text, "feature files that cannot be read")
        return Surveyed(id=video.id, problems=(problem,)), np.zeros((0, 0), np.float32)
    return surveyed(video.id, features), features


def _told(
    found: Iterable[Made], total: int, progress: Callable[[int, int], None]
) -> Iterator[Made]:
    for done, video in enumerate(found):
        progress(done, total)
        yield video
    progress(total, total)


def _scaled(plan: Plan, workers: int, progress: Callable[[int, int], None]) -> Plan:
    """The plan with what makes z-scores of the features, where that is asked for."""
    train = [v for v in plan.videos if v.subset == "train" and v.id in plan.snippets]
    if not plan.source.normalize or not train:
        return plan

    def summed(video: PlannedVideo) -> tuple[str, VideoSums]:
        """The id and the sums of a training video."""
        return video.id, scale_sums(video.id, video.features.read())

    try:
        with in_order(summed, train, workers) as sums:
            scale = training_scale(_told(sums, len(train), progress))
    except DataError:  # the features that cannot be used are named when all are read
        return plan
    return replace(plan, scale=scale)


def plan_import(source: Source) -> Plan:
    """Reads annotations, points and the headers of all feature files.

    Raises:
        DataError: annotations, points or the folder of features cannot be read at all.
    """
    annotations = read_annotations(
        source.annotations, lists=source.lists, drop_invalid=source.drop_invalid,
        content=source.content, exclude=source.exclude, drop_labels=source.drop_labels,
    )  # fmt: skip
    problems, remarks = list(annotations.problems), Remarks()
    remarks.update(annotations.left_out)
    frames, unknown = snippet_frames(
        given_rates(source.fps, annotations), source.stride, source.window,
        source.fps if isinstance(source.fps, Path) else source.annotations,
        [video.id for video in annotations.videos],
    )  # fmt: skip
    problems += [Problem(line, "videos without a frame rate or stride") for line in unknown]
    points = imported_points(source, annotations, frames, problems, remarks)
    features = _features(source, annotations.videos)
    groups, ungrouped = video_groups(source.group, [video.id for video in annotations.videos])
    problems += ungrouped
    videos = [
        replace(
            _planned(
                features[video.id], video, points.get(video.id, no_points()), frames[video.id]
            ),
            group=groups.get(video.id, ""),
        )
        for video in annotations.videos
        if video.id in frames
    ]
    pointless = [v for v in videos if v.subset == "train" and not len(v.points)]
    remarks["training videos without a point, left out"] += len(pointless)
    kept = [v for v in videos if v.subset == "test" or len(v.points)]
    _check_instances(source, kept, problems, remarks)
    for group in in_both_splits((video.subset, video.group) for video in kept):
        remarks.note("groups with videos in the training and in the test split", group)
    problems += file_problems(kept)
    if source.of_recordings and source.files is not None:
        known = (*(one.file for one in source.files.values()), source.annotations, source.points)
        remarks["recordings without an annotation"] += unused_recordings(source.features, known)
    lengths = _check_features(source, kept, problems, remarks)
    remarks["points after the last snippet, which training moves to it"] += sum(
        int((v.points.time_s >= v.grid.seconds(lengths[v.id])).sum())
        for v in kept if v.id in lengths
    )  # fmt: skip
    if not unknown:
        problems += _empty_splits(source, kept)
    dropped = sum(annotations.left_out.get(reason, 0) for reason in DROPPED)
    judge(kept, annotations.classes, problems, remarks, dropped=dropped)
    return Plan(
        source=source,
        classes=annotations.classes,
        videos=tuple(kept),
        snippets=lengths,
        remarks={reason: n for reason, n in remarks.items() if n},
        examples=remarks.examples,
        problems=tuple(problems),
    )


def _empty_splits(source: Source, videos: Sequence[PlannedVideo]) -> list[Problem]:
    """Splits that need a video and have none: without lists the training split alone."""
    needed = ("train", "test") if source.lists else ("train",)
    empty = [subset for subset in needed if not any(v.subset == subset for v in videos)]
    if empty and source.points and not read_csv(source.points, source.point_columns)[1]:
        text = f"{source.points}: holds no point; every training video needs at least one"
        return [Problem(text, "points of no video")]
    return [
        Problem(
            f"{source.annotations}: the {subset} split is empty; check the subsets, the points, or "
            "pass --train-list and --test-list",
            "splits without a video",
        )
        for subset in empty
    ]


def _features(source: Source, videos: Iterable[AnnotatedVideo]) -> Mapping[str, FeatureFile]:
    """The features of each video: those that a reader found, else <id>.npy."""
    if source.files is not None:
        return source.files
    folder = FeatureFolder(source.features)
    return {v.id: npy(folder.file(v.id), transposed=source.transpose) for v in videos}


def _planned(
    features: FeatureFile, video: AnnotatedVideo, points: Points, frames: Frames
) -> PlannedVideo:
    return PlannedVideo(
        id=video.id,
        subset=video.subset,
        features=features,
        duration_s=video.duration_s,
        instances=video.instances,
        points=points,
        frames=frames,
        feature_s=video.feature_s or video.duration_s,
        stated_fps=video.fps,
    )


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
        problems.insert(
            0, Problem(text, "instances after the end of their video")
        )  # explains the rest


def _check_features(
    source: Source, videos: Iterable[PlannedVideo], problems: list[str], remarks: Remarks
) -> dict[str, int]:
    """T of every video whose feature file has a sound header."""
    known = {video.id: video for video in videos}
    expected = {id: video.feature_s / video.grid.stride_s for id, video in known.items()}
    window = int(source.window) if source.of_recordings else 0
    lengths = snippets_of(known, expected, source.transpose, problems, window)
    covered = [
        Covered(
            file=known[id].file, snippets=length, frames=known[id].frames,
            expected_s=known[id].feature_s, stated_fps=known[id].stated_fps,
        )
        for id, length in lengths.items()
    ]  # fmt: skip
    if (problem := length_problem(covered, source.fps)) and not source.allow_length:
        text = f"{source.features}: {problem}"
        problems.append(Problem(text, "features of another length than their video"))
    else:
        remarks.update(length_remarks(covered))
    return lengths


def _preparation(plan: Plan) -> Preparation:
    """What new features need to become like those of the store."""
    source = plan.source
    own = source.files is None and not source.transpose  # <id>.npy as the extraction leaves them
    return Preparation(
        extraction=recorded_extraction(source.features) if own else {},
        transposed=source.transposed,
        every=source.every,
        window=int(source.window) if source.of_recordings else 0,
        stride=int(source.stride) if source.of_recordings else 0,
        channels=source.channels,
        scale=plan.scale,
    )


def _note(plan: Plan) -> str:
    source = plan.source
    parts = [source.note or dataset_note(source.name)]
    if source.points is None:
        noise = f", {source.point_noise.note}" if source.point_noise.note else ""
        parts.append(f"points simulated: {source.simulated_points}, seed {source.seed}{noise}")
    if source.normalize:
        parts.append("z-scores of the training split")
    if not any(video.subset == "test" for video in plan.videos):
        parts.append("no test split")
    return "; ".join(part for part in parts if part)
