"""Points against instances: the share that agrees, and the cause where few do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import shared

from ptal_ray.data.importing.agreement import Agreement, Placed, agreement
from ptal_ray.data.importing.annotations import AnnotatedVideo, read_annotations
from ptal_ray.data.points import PointRow, point_rows
from ptal_ray.data.rates import Frames
from ptal_ray.data.types import Segments
from ptal_ray.data.video_ids import same_id

CLASSES = ("open", "close", "take")


def video(
    id: str, *instances: tuple[float, float, int], fps: float | None = None
) -> AnnotatedVideo:
    columns = np.array(instances, np.float64).reshape(-1, 3).T
    return AnnotatedVideo(
        id=id,
        subset="train",
        duration_s=100.0,
        instances=Segments(
            start_s=columns[0], end_s=columns[1], label=columns[2].astype(np.int64),
            score=np.ones(len(instances)),
        ),
        frames=None if fps is None else Frames(fps=fps),
    )  # fmt: skip


def placed(id: str, value: float, label: int, fps: float | None = 30.0) -> Placed:
    row = PointRow(line=2, video=id, label=label, value=value, in_seconds=fps is None)
    return Placed(row=row, video=id, fps=fps)


def compared(
    points: list[Placed], *videos: AnnotatedVideo, classes: tuple[str, ...] = CLASSES
) -> Agreement:
    return agreement(points, {v.id: v for v in videos}, classes)


def test_a_point_must_lie_in_an_instance_of_its_class_and_video() -> None:
    a, b = video("a", (1, 3, 0), (2, 6, 0), (5, 9, 1)), video("b", (20, 30, 0))
    inside = [("a", 1.0, 0), ("a", 3.0, 0), ("a", 6.0, 0), ("a", 9.0, 1), ("b", 25.0, 0)]
    outside = [("a", 0.99, 0), ("a", 7.0, 0), ("a", 4.0, 1), ("b", 2.0, 0), ("a", 25.0, 0),
               ("b", 25.0, 2), ("a", 1e9, 0)]  # fmt: skip
    for rows, number in ((inside, 1), (outside, 0)):
        for id, time_s, label in rows:
            found = compared([placed(id, time_s, label, None)], a, b)
            assert (found.total, found.inside) == (1, number), (id, time_s, label)


def test_videos_without_instances_and_points_without_a_rate_are_not_compared() -> None:
    nowhere = PointRow(line=2, video="a", label=0, value=60.0, in_seconds=False)
    points = [placed("b", 3.0, 0, None), Placed(row=nowhere, video="a", fps=None)]
    found = compared(points, video("a", (1, 3, 0)), video("b"))
    assert found.total == found.missed == 0 and found.sound


@pytest.mark.parametrize(("wrong", "sound"), [(0, True), (1, True), (2, False)])
def test_ninety_percent_are_needed(wrong: int, sound: bool) -> None:
    points = [placed("a", 2.0, 0, None)] * (10 - wrong) + [placed("a", 50.0, 0, None)] * wrong
    found = compared(points, video("a", (1, 3, 0)))
    assert (found.sound, found.missed) == (sound, wrong)
    if wrong == 2:
        assert found.problem().startswith("8 of 10 points (80.0 %) lie in an instance of their cl")
        assert "at least 90 % is needed" in found.problem()
    if wrong == 1:
        assert found.remark() == "points in no instance of their class (90.0 % lie in one)"


# --- other readings of points that were right: 40 of 4 videos, short instances -------------------


def sound_points(fps: float | None = None) -> tuple[list[Placed], dict[str, AnnotatedVideo]]:
    rng = np.random.default_rng(0)
    points, videos = [], {}
    for n, rate in enumerate((24.0, 25.0, 30.0, 30.0)):
        start = np.arange(10) * 9.0 + rng.uniform(0, 6, 10)
        rows = [
            (s, s + 1.5, int(label)) for s, label in zip(start, rng.integers(0, 3, 10), strict=1)
        ]
        videos[f"v{n}"] = video(f"v{n}", *rows, fps=rate)
        points += [
            placed(f"v{n}", round((s + 0.75) * (fps or rate)), label, fps or rate)
            for s, _, label in rows
        ]
    return points, videos


def change(
    points: list[Placed], value: Callable[[Placed], float], fps: float | None = 0.0, label: int = 0
) -> list[Placed]:
    """Other values, another rate (0: the same; None: seconds), labels moved on."""
    return [
        Placed(
            row=dataclasses.replace(
                p.row, value=value(p), in_seconds=fps is None, label=(p.row.label + label) % 3
            ),
            video=p.video,
            fps=p.fps if fps == 0 else fps,
        )
        for p in points
    ]


@pytest.mark.parametrize("given", [60.0, 15.0, 3.0, 25.0])
@pytest.mark.parametrize("true", [30.0, 10.0])
def test_another_frame_rate_for_all(given: float, true: float) -> None:
    points, videos = sound_points(true)
    found = agreement(change(points, lambda p: p.row.value, given), videos, CLASSES)
    assert not found.sound and found.cause is not None
    assert f"likely cause: the frame rate is not {given:g}: pass --point-fps {true:g} (" in (
        found.problem()
    )
    assert f"at {true:g} fps 100.0 %" in found.problem()


def test_rates_of_single_videos() -> None:
    points, videos = sound_points()
    assert agreement(points, videos, CLASSES).missed == 0
    found = agreement(change(points, lambda p: p.row.value, 30.0), videos, CLASSES)
    assert "the frame rate is not 30: pass --point-fps json" in found.problem()
    assert "at the fps of the annotations 100.0 %" in found.problem()


def test_seconds_in_the_column_of_frames_and_frames_in_that_of_seconds() -> None:
    points, videos = sound_points()
    seconds = change(points, lambda p: p.time_s or 0.0)
    text = agreement(seconds, videos, CLASSES).problem()
    assert "likely cause: the column point holds seconds: name it time_s" in text
    frames = change(points, lambda p: p.row.value, None)
    text = agreement(frames, videos, CLASSES).problem()
    assert "the column time_s holds frames: name it point and pass --point-fps json" in text
    points, videos = sound_points(25.0)
    unstated = {id: dataclasses.replace(v, frames=None) for id, v in videos.items()}
    frames = change(points, lambda p: p.row.value, None)
    text = agreement(frames, unstated, CLASSES).problem()
    assert "the column time_s holds frames: name it point and pass --point-fps 25" in text


def test_milliseconds_in_either_column() -> None:
    points, videos = sound_points(25.0)
    milliseconds = change(points, lambda p: 1000 * (p.time_s or 0.0), None)
    text = agreement(milliseconds, videos, CLASSES).problem()
    fix = "name it point and pass --point-fps 1000"
    assert f"likely cause: the column time_s holds milliseconds: {fix}" in text
    milliseconds = change(points, lambda p: 1000 * (p.time_s or 0.0))
    text = agreement(milliseconds, videos, CLASSES).problem()
    assert "likely cause: the column point holds milliseconds: pass --point-fps 1000" in text


@pytest.mark.parametrize(("moved", "word"), [(60, "late"), (-45, "early")])
def test_a_constant_offset(moved: int, word: str) -> None:
    points, videos = sound_points(30.0)
    found = agreement(change(points, lambda p: p.row.value + moved), videos, CLASSES)
    cause = found.problem().split("likely cause: ")[1]
    assert cause.startswith("an offset: the points are about ") and f" frames too {word}" in cause
    assert float(cause.split("about ")[1].split()[0]) == pytest.approx(abs(moved), abs=3)
    seconds = change(points, lambda p: p.row.value / 30 + moved / 30, None)
    text = agreement(seconds, videos, CLASSES).problem()
    assert f" s too {word}" in text and "an offset" in text


def test_classes_that_disagree() -> None:
    points, videos = sound_points(30.0)
    text = agreement(change(points, lambda p: p.row.value, label=1), videos, CLASSES).problem()
    assert "likely cause: the classes disagree: " in text
    assert "in an instance of any class 100.0 %" in text
    number = max(sum(p.row.label == label for p in points) for label in range(3))
    assert f"{number} points of " in text


def test_noise_has_no_cause() -> None:
    points, videos = sound_points(30.0)
    rng = np.random.default_rng(1)
    noisy = change(points, lambda p: max(0.0, p.row.value + rng.normal(0, 90)))
    found = agreement(noisy, videos, CLASSES)
    assert not found.sound and found.cause is None
    assert "no other reading is clearly better (other readings would give: " in found.problem()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("value", "fps"), [(1e308, 25.0), (50.0, 1e-307)])
def test_points_at_impossible_times_are_outside(value: float, fps: float) -> None:
    points, videos = sound_points()
    rows = [dataclasses.replace(p.row, value=value) for p in points]
    moved = [dataclasses.replace(p, row=row, fps=fps) for p, row in zip(points, rows, strict=True)]
    found = agreement(moved, videos, CLASSES)
    assert (found.inside, found.outside) == (0, len(points))


def test_points_outside_videos_are_counted() -> None:
    points, videos = sound_points(30.0)
    found = agreement(change(points, lambda p: p.row.value, 10.0), videos, CLASSES)
    assert found.outside == sum(p.row.value > 1000 for p in points) > 0
    assert f", {found.outside} outside videos; " in found.problem()


# --- published points ------------------------------------------------------------------------


def published(folder: Path, fps: float | None) -> Agreement:
    found = read_annotations(folder / "gt_full.json", drop_invalid=True)
    videos = {v.id: v for v in found.videos}
    rows, problems = point_rows(folder / "point_labels/point_gaussian.csv", found.classes)
    assert problems == []
    points = [
        Placed(row=row, video=id, fps=fps or videos[id].fps)
        for row in rows
        if (id := same_id(row.video, videos)) and videos[id].subset == "train"
    ]
    return agreement(points, videos, found.classes)


@pytest.mark.parametrize(("name", "total"), [("THUMOS14", 3003), ("GTEA", 367), ("BEOID", 594)])
def test_published_points_agree(name: str, total: int) -> None:
    found = published(shared(f"data/annotations/{name}"), None)
    assert (found.total, found.missed) == (total, 0)


def test_published_points_at_a_wrong_rate() -> None:
    folder = shared("data/annotations/THUMOS14")
    found = published(folder, 60.0)
    assert (found.inside, found.total) == (1154, 3003)
    assert "the frame rate is not 60: pass --point-fps json" in found.problem()
    assert "at 30 fps 95.8 %" in found.problem()
    one_for_all = published(folder, 30.0)
    assert one_for_all.sound and "100.0 % would at the fps of the annotations" in (
        one_for_all.remark()
    )
