"""The commands of the tutorial of `ptal_ray/data` do what it says, with tiny budgets."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared

import ptal_ray

PAGE = Path(ptal_ray.__file__).parent / "data" / "README.md"
TINY = (
    "--num-trials 2 --set policy=simple --set budget.max_steps=20 --set budget.min_steps=10 "
    "--set final.top=1 --set final.seeds=1 --set train.embed_dim=32 --quiet"
)
MOST_S = 400
PEOPLE = {"01", "02", "08", "10"}  # two of the training, two of the test


def blocks(first: str, last: str) -> list[str]:
    """The command blocks between two headings, without those of other installations."""
    text = PAGE.read_text("utf-8")
    part = text[text.index(f"# {first}\n") : text.index(f"# {last}\n")]
    found = re.findall(r"^```\n(.+?)^```$", part, re.MULTILINE | re.DOTALL)
    return [block for block in found if re.search(r"\bpython\b", block) and "net.pt2" not in block]


def run(block: str, folder: Path) -> str:
    """What a block prints; installing is done, a search is a small one, and frames are few."""
    lines = [line for line in block.splitlines() if not line.startswith("pip ")]
    small = [
        f"{line} {TINY}" if " ptal_ray.search " in line and "--dry-run" not in line else line
        for line in lines
    ]
    few = [line.replace("--fps 8 --stride 4", "--fps 2 --stride 1") for line in small]
    script = "\n".join(few).replace("studies/lacp-<time>", "$(ls -d studies/lacp-* | tail -1)")
    environment = os.environ | {
        "PTAL_DATA": str(folder / "stores"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    with subprocess.Popen(
        ["bash", "-ec", script], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        try:
            said, _ = running.communicate(timeout=MOST_S)
        except BaseException:
            os.killpg(running.pid, signal.SIGTERM)  # the search too, which ends Ray
            raise
    assert running.returncode == 0, f"{script}\n{said[-4000:]}"
    return said


def found(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "detections.json").read_text())["results"]
    return results


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ("c,wave,1,3\nc,open,4,6\n", "test      1 videos, .* 2 instances, 0 points"),
        ("c,,,\n", "test      1 videos, .* 0 instances, 2 points"),  # clicks alone
        ("", "note      no test split"),
    ],
)
def test_the_annotations_of_the_page_are_imported(
    tmp_path: Path, segments: str, expected: str
) -> None:
    (tmp_path / "features").mkdir()
    random = np.random.default_rng(0)
    for id in "abc":
        array = random.random((20, 4)).astype(np.float32)
        np.save(tmp_path / "features" / f"{id}.npy", array)
    videos = "".join(f"{id},8,4,4,10\n" for id in "abc")
    (tmp_path / "features" / "videos.csv").write_text(
        f"video,fps,stride,window,duration_s\n{videos}"
    )
    clicked = "abc" if segments.startswith("c,,") else "ab"
    clicks = "".join(f"{id},wave,2\n{id},open,5\n" for id in clicked)
    (tmp_path / "clicks.csv").write_text(f"video_id,class,time_s\n{clicks}")
    (tmp_path / "segments.csv").write_text(f"video,class,start_s,end_s\n{segments}")
    made, *_ = blocks("2. Annotations", "3. Import")
    imported, *_ = blocks("3. Import", "4. Search")
    said = run(made + imported, tmp_path)
    assert re.search(f"^{expected}$", said, re.MULTILINE) and "classes   open, wave (2)" in said


@pytest.mark.search
@pytest.mark.slow
def test_from_videos_and_clicks_to_detections(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
    shutil.copytree(shared("data/videos"), tmp_path / "clips", ignore=lambda *_: ["gt.json"])
    (tmp_path / "new_clips").mkdir()
    shutil.copy(tmp_path / "clips" / "demo.mp4", tmp_path / "new_clips" / "another.mp4")
    real = json.loads(shared("data/videos/gt.json").read_text())
    middles = {id: sum(entry["annotations"][0]["segment"]) / 2 for id, entry in real.items()}
    clicks = [("video_id", "class", "time_s"), *((id, "sport", t) for id, t in middles.items())]
    segments = [("video", "class", "start_s", "end_s"), ("demo", "sport", 0.5, 9.0)]
    for name, rows in (("clicks.csv", clicks), ("segments.csv", segments)):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    said = "".join(run(block, tmp_path) for block in blocks("1. Features", "Recordings of sensors"))
    assert "3 videos extracted, 0 left out" in said
    assert "train     2 videos" in said and "test      1 videos" in said
    assert "test mAP, recommended" in said
    assert set(found(tmp_path)) == {"another"}
    assert "<title>Detections</title>" in (tmp_path / "detections.html").read_text()


@pytest.mark.search
@pytest.mark.slow
def test_from_recordings_to_detections(tmp_path: Path) -> None:
    release, page = shared("data/hapt"), blocks("Recordings of sensors", "Reference")
    own = tmp_path / "recordings"
    (own / "signals").mkdir(parents=True)
    content = json.loads((release / "annotations.json").read_text())
    kept = {id: v for id, v in content["database"].items() if id[-2:] in PEOPLE}
    segments = [
        f"{id},{item['label']},{item['segment'][0]},{item['segment'][1]}"
        for id, video in kept.items()
        if video["subset"] == "test"
        for item in video["annotations"]
    ]
    (own / "segments.csv").write_text("\n".join(["video,class,start_s,end_s", *segments]))
    head, *lines = (release / "points_gaussian.csv").read_text().splitlines()
    rows = [line for line in lines if line.split(",")[1] in kept]
    (own / "clicks.csv").write_text("\n".join([head, *rows]))
    for id in kept:
        shutil.copy(release / "signals" / f"{id}.npy", own / "signals")
    (tmp_path / "new_recordings").mkdir()
    shutil.copy(release / "signals" / "exp01_user01.npy", tmp_path / "new_recordings" / "new.npy")
    said = "".join(run(block, tmp_path) for block in page)
    assert "z-scores of the training split" in said and "test mAP, recommended" in said
    detections = found(tmp_path)["new"]
    assert detections and {item["label"] for item in detections} <= set(
        item["label"] for entry in kept.values() for item in entry["annotations"]
    )
