"""Published points of a store of simulated features."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_simulate import ALLOWED, run, write_annotations

from ptal_ray.data.simulate import Published
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import DataError


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Annotations to simulate features on."""
    return write_annotations(tmp_path / "gt.json", fps=30)


def write_points(path: Path, annotations: Path, fps: float, *, skip: str = "", **more: Any) -> Path:
    """Points at a third of each training instance, in the layout of the published files."""
    rows = []
    for id, video in json.loads(annotations.read_text())["database"].items():
        for item in video["annotations"]:
            start, end = (fps * s for s in item["segment"])
            row = {
                "class": item["label"], "start_frame": start, "stop_frame": end,
                "video_id": more.get("prefix", "") + id, "point": round(start + (end - start) / 3),
            }  # fmt: skip
            if video["subset"] == "training" and id != skip:
                rows.append({k: v for k, v in row.items() if k not in more.get("without", ())})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def thirds(store: FeatureStore, id: str) -> np.ndarray:
    instances = store.annotations(id)
    return np.sort(instances.start_s + (instances.end_s - instances.start_s) / 3)


def test_published_points_count_frames_of_the_annotations(made: Path, tmp_path: Path) -> None:
    points = write_points(tmp_path / "points.csv", made, 30, without=("start_frame",))
    store = run(made, tmp_path / "store", points_csv=points)
    for id in store.ids("train"):
        np.testing.assert_allclose(store.points(id).time_s, thirds(store, id), atol=0.5 / 30 + 1e-6)
    assert ", 0 gaussian" in store.info.note


def test_published_points_of_activitynet_count_frames_of_the_original_videos(
    tmp_path: Path,
) -> None:
    annotations = write_annotations(tmp_path / "gt.json")  # no fps, ids without "v_"
    points = write_points(tmp_path / "points.csv", annotations, 29.97, prefix="v_", skip="v03")
    store = run(annotations, tmp_path / "store", points_csv=points)
    for id in store.ids("train"):
        if id != "v03":
            np.testing.assert_allclose(
                store.points(id).time_s, thirds(store, id), atol=0.5 / 29.97 + 1e-6
            )
    missing = len(store.annotations("v03"))
    assert len(store.points("v03")) == missing
    assert f", {missing} gaussian" in store.info.note


def test_points_need_a_frame_rate_and_a_place_in_the_video(tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json")
    blind = write_points(tmp_path / "a.csv", annotations, 25, without=("stop_frame",))
    with pytest.raises(DataError, match="video v00: unknown frame rate"):
        run(annotations, tmp_path / "store", points_csv=blind)
    slow = write_annotations(tmp_path / "slow.json", fps=10)
    points = write_points(tmp_path / "b.csv", annotations, 30)
    with pytest.raises(DataError, match="the frame rate is not 10: pass --point-fps 30 "):
        run(slow, tmp_path / "store", points_csv=points)
    with pytest.raises(DataError, match=r"b\.csv:4: video v00: .*the video lasts .*--point-fps"):
        run(slow, tmp_path / "store", points_csv=points, published=ALLOWED)
    for stop in ("many", "inf"):
        (tmp_path / "c.csv").write_text(f"class,video_id,point,stop_frame\ndive,v00,1,{stop}\n")
        with pytest.raises(DataError, match="not a points CSV"):
            run(annotations, tmp_path / "store", points_csv=tmp_path / "c.csv")
    assert not (tmp_path / "store").exists()


def test_the_rate_of_published_points_may_be_given(made: Path, tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json", fps=10)
    points = write_points(tmp_path / "points.csv", annotations, 30, without=("stop_frame",))
    rates = tmp_path / "rates.csv"
    rates.write_text("\n".join(["video,fps", *(f"v_v{n:02d},30" for n in range(40))]))
    found = [
        run(annotations, tmp_path / str(n), points_csv=points, published=Published(fps=given))
        for n, given in enumerate((30.0, rates))
    ]
    assert found[0].info.content_hash == found[1].info.content_hash
    rates.write_text("video,fps\nv00,30")
    with pytest.raises(DataError, match="video v01: unknown frame rate"):
        run(annotations, tmp_path / "store", points_csv=points, published=Published(fps=rates))


def test_noisy_published_points_go_on_when_allowed(made: Path, tmp_path: Path) -> None:
    points = write_points(tmp_path / "points.csv", made, 30)
    lines = points.read_text().splitlines()
    frame = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))["point"]
    moved = [line.rpartition(",")[0] + ",1" if n % 5 else line for n, line in enumerate(lines)]
    points.write_text("\n".join([lines[0], *moved[1:]]))
    assert frame != "1"
    told: list[str] = []
    with pytest.raises(DataError, match=r"points\.csv: .* lie in an instance .*--allow-points"):
        run(made, tmp_path / "store", points_csv=points)
    allowed = Published(allow_points=True, remark=told.append)
    run(made, tmp_path / "store", points_csv=points, published=allowed)
    assert len(told) == 1 and told[0].startswith("points in no instance of their class (")


def test_points_in_seconds_need_no_frame_rate(tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json")
    video = json.loads(annotations.read_text())["database"]["v00"]["annotations"][0]
    moment = sum(video["segment"]) / 2
    (tmp_path / "p.csv").write_text(f"class,video_id,time_s\n{video['label']},v00,{moment}\n")
    store = run(annotations, tmp_path / "store", points_csv=tmp_path / "p.csv")
    assert moment in store.points("v00").time_s
    assert "1 published" in store.info.note


# --- arguments --------------------------------------------------------------------------------


def test_points_of_one_video_under_two_ids_are_a_data_error(tmp_path: Path) -> None:
    annotations = write_annotations(tmp_path / "gt.json")
    lines = ["class,video_id,time_s", "dive,v00,1", "dive,v_v00,2"]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"p\.csv: video v00 is there with and without v_; write"):
        run(annotations, tmp_path / "store", points_csv=tmp_path / "p.csv")
