"""Stores of simulated features on the real annotations of a benchmark."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.importing.agreement import Placed, agreement
from ptal_ray.data.importing.annotations import AnnotatedVideo, Annotations, read_annotations
from ptal_ray.data.importing.placing import before_video, place, written_twice
from ptal_ray.data.points import no_points, point_rows, simulate_points, sorted_points
from ptal_ray.data.rates import RateSource, given_frames
from ptal_ray.data.recipe import SIGMA, Floats, Recipe, video_features
from ptal_ray.data.store import StoreWriter
from ptal_ray.data.types import Grid, Points, Segments
from ptal_ray.data.user_files import read_csv
from ptal_ray.data.video_ids import same_id
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.process.pool import process_pool

STRIDE_S = {  # 16 frames a snippet, at the frame rate of the usual features
    "thumos14": 16 / 25,
    "thumos14_stride4": 4 / 30,
    "anet12": 16 / 25,
    "anet13": 16 / 25,
    "gtea": 16 / 15,
    "beoid": 16 / 30,
}
CHUNK_BYTES = 4 << 20  # features that a worker hands over at once
SLACK_S = 0.1  # a published point may miss its instance by a rounded frame, at 10 fps and more


@dataclass(frozen=True, kw_only=True)
class Published:
    """How published points are read.

    Args:
        fps: frame rate of their frame numbers: one value, "json" for the rates in the annotations,
            or a CSV; None means "json", and for a video without a rate the rate computed from the
            column `stop_frame` of the points.
        allow_points: no error if many points are outside the instances of their class.
        remark: called with each warning.
    """

    fps: RateSource | None = None
    allow_points: bool = False
    remark: Callable[[str], None] = lambda text: None


def simulate(
    name: str,
    annotations: Path,
    *,
    points_csv: Path | None,
    dim: int = 128,
    difficulty: str = "standard",
    seed: int = 0,
    out: Path,
    limit: int | None = None,
    workers: int,
    replace: bool,
    train_list: Path | None = None,
    test_list: Path | None = None,
    stride_s: float | None = None,
    exclude: Set[str] = frozenset(),
    progress: Callable[[int, int], None] = lambda done, total: None,
    published: Published = Published(),
) -> Path:
    """Writes a store of simulated features on the annotations of a dataset.

    The features of a video depend on its id and annotations, the classes of the file, `dim`,
    `difficulty`, `seed` and `stride_s`; not on the other videos, the lists, `limit` or `workers`.

    Args:
        name: of the dataset.
        annotations: ground truth in the ActivityNet layout. Instances whose end is not after
            their start or whose start is negative are left out.
        points_csv: published points of the training videos; an instance without one gets a
            gaussian one. None: all are gaussian.
        dim, difficulty: D; "easy", "standard" or "hard".
        seed: of features, simulated points and the choice of videos.
        out: directory of the store.
        limit: approximate number of videos to take, stratified by subset and class.
        workers, replace: processes; whether to replace an existing store.
        train_list, test_list: files with one video id per line, in place of the subsets.
        stride_s: seconds a snippet covers; None takes that of `name` in STRIDE_S.
        exclude: ids of videos to leave out.
        progress: called with videos done and videos in all.
        published: how `points_csv` is read.

    Returns:
        `out`.

    Raises:
        ConfigError, DataError: an argument, an input file or `out` is wrong.
    """
    truth = _truth(annotations, train_list, test_list, exclude)
    recipe = Recipe(
        num_classes=len(truth.classes), dim=dim, difficulty=difficulty, seed=seed,
        stride_s=_stride(name) if stride_s is None else stride_s,
    )  # fmt: skip
    _check(recipe, limit, workers)
    videos = choose(truth.videos, limit, recipe)
    found = _published(points_csv, videos, truth.classes, recipe.stride_s, published)
    points, added = _points(videos, found, recipe)
    note = _note(truth, videos, points, added)
    with _writer(out, name, truth.classes, recipe, note, replace) as writer:
        _write(writer, videos, points, _stream(recipe, videos, workers), progress)
    return out


def _writer(
    out: Path, name: str, classes: tuple[str, ...], recipe: Recipe, note: str, replace: bool
) -> StoreWriter:
    grid = Grid(stride_s=recipe.stride_s)
    return StoreWriter(
        out, name=name, classes=classes, grid=grid, features=recipe.label, note=note,
        replace=replace,
    )  # fmt: skip


def _write(
    writer: StoreWriter,
    videos: Sequence[AnnotatedVideo],
    points: Mapping[str, Points],
    stream: Iterable[NDArray[np.float16]],
    progress: Callable[[int, int], None],
) -> None:
    for done, (video, features) in enumerate(zip(videos, stream, strict=True)):
        progress(done, len(videos))
        writer.add(
            video.id,
            subset=video.subset,
            features=features,
            duration_s=video.duration_s,
            annotations=video.instances,
            points=points.get(video.id, no_points()),
        )
    progress(len(videos), len(videos))


def choose(
    videos: Sequence[AnnotatedVideo], limit: int | None, recipe: Recipe
) -> list[AnnotatedVideo]:
    """About `limit` of the videos, stratified by subset and class, in file order.

    The class of a video is that of its first instance.
    """
    if limit is None or limit >= len(videos):
        return list(videos)
    kept: list[int] = []
    for subset in ("train", "test"):
        member = np.array([n for n, v in enumerate(videos) if v.subset == subset], np.int64)
        rank = _rank_in_class([videos[n] for n in member], recipe.generator("limit", subset))
        count = max(1, round(limit * len(member) / len(videos)))
        kept += member[np.argsort(rank, kind="stable")[:count]].tolist()
    return [videos[n] for n in sorted(kept)]


def _rank_in_class(videos: Sequence[AnnotatedVideo], rng: np.random.Generator) -> Floats:
    """In [0, 1): a random place among the videos of its class; below x lies a share x of each."""
    rank = np.zeros(len(videos))
    label = np.array([v.instances.label[0] if len(v.instances) else -1 for v in videos], np.int64)
    for value in np.unique(label):
        member = np.flatnonzero(label == value)
        rank[member] = (rng.permutation(len(member)) + rng.random()) / len(member)
    return rank


def _truth(
    path: Path, train_list: Path | None, test_list: Path | None, exclude: Set[str]
) -> Annotations:
    if (train_list is None) != (test_list is None):
        raise ConfigError("simulate: pass both --train-list and --test-list, or neither")
    lists = {"train": train_list, "test": test_list} if train_list and test_list else None
    truth = read_annotations(path, lists=lists, drop_invalid=True, exclude=exclude)
    if truth.problems:
        raise DataError(f"{truth.problems[0]} (of {len(truth.problems)} such lines)")
    if not truth.videos or not truth.classes:
        raise DataError(f"{path}: no annotated video; check the subsets or the lists")
    for subset in ("train", "test"):
        own = [video for video in truth.videos if video.subset == subset]
        if own and not any(len(video.instances) for video in own):
            raise DataError(f"{path}: the {subset} split has {len(own)} videos and no instance")
    return truth


def _stride(name: str) -> float:
    if name not in STRIDE_S:
        known = ", ".join(STRIDE_S)
        raise ConfigError(
            f"simulate: no known stride for {name!r}; pass --stride-s, or use {known}"
        )
    return STRIDE_S[name]


def _check(recipe: Recipe, limit: int | None, workers: int) -> None:
    if recipe.difficulty not in SIGMA:
        known = ", ".join(SIGMA)
        raise ConfigError(f"simulate: difficulty {recipe.difficulty!r}; allowed are {known}")
    if not 0 < recipe.stride_s < float("inf"):
        raise ConfigError(f"simulate: stride {recipe.stride_s} s; must be a positive number")
    for key, value, least in (
        ("dim", recipe.dim, 1),
        ("seed", recipe.seed, 0),
        ("limit", limit, 2),
        ("workers", workers, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"simulate: {key} {value}; must be at least {least}")


def _stream(
    recipe: Recipe, videos: Sequence[AnnotatedVideo], workers: int
) -> Iterator[NDArray[np.float16]]:
    """Features of the videos in order; 2 * workers chunks are in memory at most."""
    chunks = _chunks(recipe, videos)
    if workers == 1:
        yield from chain.from_iterable(_features(recipe, chunk) for chunk in chunks)
        return
    running: deque[Future[list[NDArray[np.float16]]]] = deque()
    with process_pool(workers) as pool:
        for chunk in chunks:
            running.append(pool.submit(_features, recipe, chunk))
            if len(running) == 2 * workers:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()


def _chunks(recipe: Recipe, videos: Iterable[AnnotatedVideo]) -> Iterator[list[AnnotatedVideo]]:
    chunk: list[AnnotatedVideo] = []
    size = 0
    for video in videos:
        chunk.append(video)
        size += recipe.num_snippets(video.duration_s) * recipe.dim * 2
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _features(recipe: Recipe, videos: Sequence[AnnotatedVideo]) -> list[NDArray[np.float16]]:
    return [video_features(recipe, v.id, v.duration_s, v.instances) for v in videos]


def _points(
    videos: Sequence[AnnotatedVideo], published: Mapping[str, Points], recipe: Recipe
) -> tuple[dict[str, Points], int]:
    """Points of the training videos, and how many of them are simulated."""
    training = {v.id: v for v in videos if v.subset == "train"}
    points, added = {}, 0
    for id, video in training.items():
        own = published.get(id, no_points())
        rest = video.instances.take(~_holds_point(video.instances, own))
        # Some published instances end behind their video.
        inside = dataclasses.replace(rest, end_s=np.minimum(rest.end_s, video.duration_s))
        extra = simulate_points(inside, recipe.generator(id, "points"), "gaussian")
        time_s = np.minimum(np.concatenate([own.time_s, extra.time_s]), video.duration_s)
        label = np.concatenate([own.label, extra.label])
        points[id] = sorted_points(list(zip(time_s.tolist(), label.tolist(), strict=True)))
        added += len(extra)
    return points, added


def _holds_point(instances: Segments, points: Points) -> NDArray[np.bool_]:
    """(G,): whether a point of its class lies in each instance."""
    first, last = instances.start_s[:, None] - SLACK_S, instances.end_s[:, None] + SLACK_S
    inside = (first <= points.time_s) & (points.time_s <= last)
    holds: NDArray[np.bool_] = (inside & (points.label == instances.label[:, None])).any(axis=1)
    return holds


def _published(
    path: Path | None,
    videos: Sequence[AnnotatedVideo],
    classes: tuple[str, ...],
    stride_s: float,
    how: Published,
) -> dict[str, Points]:
    """Points of a CSV by the ids of the annotations; none without a CSV."""
    if path is None:
        return {}
    training = {v.id: v for v in videos if v.subset == "train"}
    placed = _placed(path, training, classes, how.fps)
    agreed = agreement(placed, training, classes)
    if not (agreed.sound or how.allow_points):
        raise DataError(f"{path}: {agreed.problem()}")
    if agreed.missed:
        how.remark(f"{agreed.remark()}: {agreed.missed}")
    found: dict[str, list[tuple[float, int]]] = {}
    for point in placed:
        assert point.time_s is not None  # a rate that is missing has been an error
        video = training[point.video]
        if point.time_s < 0:
            raise DataError(before_video(f"{path}:{point.row.line}", point))
        if point.time_s > video.duration_s + stride_s:
            raise DataError(
                f"{path}:{point.row.line}: video {video.id}: point at {point.time_s:.2f} s, but "
                f"the video lasts {video.duration_s:.2f} s; correct the point or --point-fps"
            )
        found.setdefault(video.id, []).append((point.time_s, point.row.label))
    return {id: sorted_points(pairs) for id, pairs in found.items()}


def _placed(
    path: Path,
    videos: Mapping[str, AnnotatedVideo],
    classes: tuple[str, ...],
    point_fps: RateSource | None,
) -> Sequence[Placed]:
    """The points of the training videos; those of other videos are left out."""
    rows, problems = point_rows(path, classes)
    for problem in problems:
        raise DataError(problem)
    stated = {id: video.frames for id, video in videos.items()}
    given = given_frames(point_fps or "json", stated, lambda id: same_id(id, videos))
    rates = {id: frames.fps for id, frames in given.items()}
    if point_fps is None:
        rates = _frame_rates(path, videos) | rates
    placing = place(rows, videos, rates)
    for id in placing.twice:
        raise DataError(f"{path}: {written_twice(id)}")
    for row, _ in placing.rateless:
        raise DataError(
            f'{path}:{row.line}: video {row.video}: unknown frame rate; add "fps" to the video '
            "in the annotations, pass --point-fps with a number or a CSV, or give the points in "
            "seconds in a column time_s"
        )
    return placing.points


def _frame_rates(path: Path, videos: Mapping[str, AnnotatedVideo]) -> dict[str, float]:
    """Frames per second as the last `stop_frame` of each video in a points CSV gives them, by id.

    The annotations give them for THUMOS14, GTEA and BEOID. For ActivityNet 1.3 they do not, and
    the published CSV counts frames of the original videos (29.97, 30, 25, 23.98, ... a second,
    not of the 25 of the features): the rate is `stop_frame` of the last instance over its end in
    seconds. The column serves for this change of unit and goes nowhere.
    """
    rates: dict[str, float] = {}
    for key, last_frame in _last_frames(path).items():
        if (id := same_id(key, videos)) is None:
            continue
        rate = last_frame / max(videos[id].instances.end_s, default=np.inf)
        if rate > 0:
            rates[id] = rate
    return rates


def _last_frames(path: Path) -> dict[str, float]:
    """The largest `stop_frame` of each video of a points CSV, 0 without the column."""
    last: dict[str, float] = {}
    try:
        for _, row in read_csv(path)[1]:
            frame = 1.0 if row.get("time_s") else float(row.get("stop_frame") or 0)
            if not np.isfinite(frame):
                raise ValueError(f"stop_frame {row['stop_frame']}")
            last[row["video_id"]] = max(frame, last.get(row["video_id"], 0.0))
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a points CSV ({error!r}); required are class, video_id, point and, if "
            "the annotations have no fps, stop_frame"
        ) from error
    return last


def _note(
    truth: Annotations, videos: Sequence[AnnotatedVideo], points: dict[str, Points], added: int
) -> str:
    total = sum(len(p) for p in points.values())
    parts = ["simulated features on real annotations"]
    if len(videos) < len(truth.videos):
        parts.append(f"{len(videos)} of {len(truth.videos)} videos, stratified by class")
    parts.append(f"{total} points: {total - added} published, {added} gaussian")
    parts += [f"{number} {reason}, left out" for reason, number in truth.left_out.items()]
    return "; ".join(parts)
