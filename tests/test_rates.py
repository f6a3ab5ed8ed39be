"""Frame rates, strides and windows of single videos: where they come from, what they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptal_ray.data.__main__ import main
from ptal_ray.data.importing.importer import import_dataset, plan_import
from ptal_ray.data.importing.plan import Source
from ptal_ray.data.rates import (
    Frames,
    given_frames,
    positive,
    rate_source,
    snippet_frames,
    stated_frames,
)
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid
from ptal_ray.errors import DataError

RATES = {"a": 30.0, "b": 25.0, "c": 24.0}  # of videos of 16 s each, with a snippet every 16 frames


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Three videos whose points, features and annotations count frames of their own rates."""
    database, lines = {}, ["class,video_id,point"]
    (tmp_path / "features").mkdir()
    for id, fps in RATES.items():
        database[id] = {
            "subset": "validation" if id == "c" else "training",
            "duration": 16.0,
            "frame_rate": str(fps),
            "annotations": [{"segment": [8, 10], "label": "open"}],
        }
        lines += [f"open,v_{id},{9 * fps:.0f}"]
        np.save(tmp_path / "features" / f"{id}.npy", np.random.default_rng(0).random((int(fps), 2)))
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (tmp_path / "points.csv").write_text("\n".join(lines))
    return Source(
        name="own", features=tmp_path / "features", annotations=tmp_path / "gt.json", fps="json",
        stride=16.0, points=tmp_path / "points.csv",
    )  # fmt: skip


def changed(source: Source, **changes: Any) -> Source:
    return Source(**({name: getattr(source, name) for name in source.__dict__} | changes))


def imported(source: Source, **changes: Any) -> FeatureStore:
    out = source.annotations.parent / "store"
    import_dataset(changed(source, **changes), out, replace=True)
    return FeatureStore.open(out)


def table(source: Source, *lines: str) -> Path:
    path = source.annotations.parent / "rates.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_annotations_give_each_video_its_rate(source: Source) -> None:
    store = imported(source)
    assert store.info.grid is None
    for id, fps in RATES.items():
        assert store.grid(id) == Grid(stride_s=16 / fps)
    assert [store.points(id).time_s.tolist() for id in "ab"] == [[9.0], [9.0]]
    store.verify()


def test_one_csv_gives_features_and_points_their_rates(source: Source) -> None:
    path = table(source, "video,numFrame,fps,rfps", "v_a,9,30,1", "b,9,25,1", "v_c,9,24,1")
    database = json.loads(source.annotations.read_text())["database"]
    for entry in database.values():
        del entry["frame_rate"]
    source.annotations.write_text(json.dumps({"database": database}))
    store = imported(source, fps=path, point_fps=path)
    assert [store.grid(id).stride_s for id in RATES] == [16 / fps for fps in RATES.values()]
    assert store.points("b").time_s.tolist() == [9.0]


def test_stride_and_window_of_single_videos(source: Source) -> None:
    path = table(source, "video,fps,stride,window", "a,30,16,", "b,25,16,32", "c,12,8,16")
    store = imported(source, fps=path, stride=0.0)
    assert store.grid("a") == Grid(stride_s=16 / 30)
    assert store.grid("b") == Grid(stride_s=16 / 25, offset_s=8 / 25)
    assert store.grid("c") == Grid(stride_s=8 / 12, offset_s=4 / 12)
    path = table(source, "video,fps,stride", "a,30,", "b,25,16", "c,24,16")
    with pytest.raises(DataError, match=r"rates\.csv: no stride for 1 of 3 videos: a; .*--stride"):
        imported(source, fps=path, stride=0.0)
    assert imported(source, fps=path, stride=16.0).grid("a") == Grid(stride_s=16 / 30)


def test_equal_rates_make_a_store_of_one_grid(source: Source) -> None:
    for id in RATES:
        np.save(source.features / f"{id}.npy", np.random.default_rng(0).random((25, 2)))
    database = json.loads(source.annotations.read_text())["database"]
    (source.annotations.parent / "points.csv").write_text(
        "class,video_id,time_s\nopen,a,9\nopen,b,9\n"
    )
    for entry in database.values():
        entry["frame_rate"] = 25
    source.annotations.write_text(json.dumps({"database": database}))
    from_json, from_number = imported(source), imported(source, fps=25.0)
    assert from_json.info.grid == Grid(stride_s=16 / 25)
    assert from_json.info.content_hash == from_number.info.content_hash


def test_points_are_clamped_by_the_snippet_of_their_video(source: Source) -> None:
    points = source.annotations.parent / "points.csv"
    points.write_text(points.read_text() + "\nopen,v_b,414")  # at 16.56 s, a snippet is 0.64 s
    plan = plan_import(changed(source, allow_points=True))
    assert plan.problems == ()
    assert plan.remarks["points less than a snippet after the end of their video, clamped"] == 1
    points.write_text(points.read_text() + "\nopen,v_a,497")  # at 16.57 s, a snippet is 0.53 s
    problems = plan_import(changed(source, allow_points=True)).problems
    assert len(problems) == 1 and "outside video a of 16.00 s" in problems[0]


def test_missing_rates_are_named_once_with_the_fix(source: Source) -> None:
    database = json.loads(source.annotations.read_text())["database"]
    del database["a"]["frame_rate"]
    database["c"]["frame_rate"] = 0
    source.annotations.write_text(json.dumps({"database": database}))
    with pytest.raises(
        DataError, match=r"gt\.json: no frame rate for 2 of 3 videos: a, c; .*--fps"
    ):
        imported(source, point_fps=30.0)
    path = table(source, "video,fps", "a,30", "b,25")
    with pytest.raises(DataError, match=r"rates\.csv: no frame rate for 1 of 3 videos: c; "):
        imported(source, fps=path, point_fps=30.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("id,rate", "a,10"), r"rates\.csv: no column"),
        (
            ("video,fps", "a,30", "v_b,fast"),
            r"rates\.csv:3: video v_b: fps 'fast'; must be a positive number",
        ),
        (("video,fps", "a,"), r"rates\.csv:2: video a: fps ''; must be a positive number"),
        (
            ("video,fps,stride", "a,30,0"),
            r"rates\.csv:2: video a: stride '0'; must be a positive number",
        ),
        (
            ("video,fps,window", "a,30,-1"),
            r"rates\.csv:2: video a: window '-1'; must be a positive number",
        ),
        (("video,fps", "a,30", "v_a,25"), r"rates\.csv:3: video v_a: an earlier line has other"),
    ],
)
@pytest.mark.parametrize("flag", ["fps", "point_fps"])
def test_a_wrong_csv_of_rates(
    source: Source, lines: tuple[str, ...], message: str, flag: str
) -> None:
    path = table(source, *lines)
    with pytest.raises(DataError, match=message):
        imported(source, **{flag: path})
    with pytest.raises(DataError, match="absent.csv: cannot be read"):
        imported(source, **{flag: path.parent / "absent.csv"})


def test_lines_of_other_videos_are_not_looked_at(source: Source) -> None:
    path = table(source, "video,fps", "zz,?", "a,30", "b,25", "c,24")
    assert imported(source, fps=path).grid("b") == Grid(stride_s=0.64)


@pytest.mark.parametrize(
    "name", ["fps", "frame_rate", "frameRate", "FPS", "framerate", "video_fps"]
)
def test_spellings_of_real_files(name: str) -> None:
    assert stated_frames({name: 25, "stride": 8}) == Frames(fps=25.0, stride=8.0)
    assert stated_frames({name: None}) is stated_frames({"rate": 25}) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [("25", 25.0), ("30000/1001", 30000 / 1001), (30, 30.0), ("1/0", None), ("a", None),
     (0, None), (-1, None), ("nan", None), (float("inf"), None), (None, None), ([], None)],
)  # fmt: skip
def test_positive_numbers_however_written(value: Any, number: float | None) -> None:
    assert positive(value) == number


def test_the_value_of_a_flag() -> None:
    assert rate_source("json") == "json"
    assert rate_source("29.97") == 29.97
    assert rate_source("info.csv") == Path("info.csv")
    for wrong in ("a", "0", "-1", "nan", "0.0"):
        with pytest.raises(ValueError, match="allowed are json, a positive number or a CSV file"):
            rate_source(wrong)


def test_a_rate_for_all_and_flags_for_the_rest() -> None:
    found = given_frames(25.0, {"a": Frames(fps=30.0), "b": None}, lambda id: id)
    full, problems = snippet_frames(found, 16.0, 32.0, Path("gt.json"), ["a", "b"])
    assert full == dict.fromkeys("ab", Frames(fps=25.0, stride=16.0, window=32.0))
    assert problems == []


def test_from_the_command_line(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source.annotations.parent
    words = [
        "import", "own", "--features", folder / "features", "--annotations", folder / "gt.json",
        "--points", folder / "points.csv", "--out", folder / "out", "--stride", 16, "--fps",
    ]  # fmt: skip
    assert main([str(word) for word in [*words, "json"]]) == 0
    assert "a snippet every 0.533333 to 0.666667 s from 0 s" in capsys.readouterr().out
    assert main([str(word) for word in [*words, 30, "--replace"]]) == 3
    assert "with --fps json all would fit" in capsys.readouterr().err
