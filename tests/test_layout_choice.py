"""Flags and files that every layout takes: --exclude, --drop-label, CSVs of other programs."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from released_folder import (
    POINTS,
    SEGMENTS,
    SUBSETS,
    annotations,
    database,
    features,
    frames_release,
    imported,
    save,
    write,
)
from test_readers import arrays_release, transcripts, two_streams

from ptal_ray.data.exclusions import named_ids
from ptal_ray.data.readers.layouts import LAYOUTS

Words = list[Any]


def plain(root: Path) -> Words:
    write(root / "gt.json", json.dumps({"database": database()}))
    write(root / "points.csv", POINTS)
    write(root / "fps.csv", "video,fps,stride\na,2,1\nb,2,1\nc,2,1\n")
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npy", features())
    return ["--features", root / "features", "--annotations", root / "gt.json", "--points",
            root / "points.csv", "--point-fps", 10, "--fps", root / "fps.csv"]  # fmt: skip


def opentad(root: Path) -> Words:
    frames_release(root, suffix=".npy", frame=100)
    write(root / "annotations" / "category_idx.txt", "open\nclose\n")
    return ["--layout", "opentad", root, "--stride", 5, "--window", 15,
            "--simulate-points", "centre"]  # fmt: skip


def hrpro(root: Path) -> Words:
    write(root / "gt_full.json", json.dumps({"database": database(fps=10)}))
    write(root / "point_labels" / "point_gaussian.csv", POINTS)
    write(root / "split_train.txt", "a\nb\n")
    write(root / "split_test.txt", "c\n")
    for id in SEGMENTS:
        save(root / "features" / ("test" if id == "c" else "train") / f"{id}.npy", features(16))
    return ["--layout", "hrpro", root]


def streams(layout: str) -> Callable[[Path], Words]:
    def laid_out(root: Path) -> Words:
        two_streams(root, "{0}/{1}")
        return ["--layout", layout, root]

    return laid_out


def bmn(root: Path) -> Words:
    entries, info = {}, ["video,numFrame,seconds,fps,rfps,subset,featureFrame"]
    for id in SEGMENTS:
        entries[id] = {"duration_second": 10.0, "duration_frame": 100, "feature_frame": 100,
                       "annotations": annotations(id)}  # fmt: skip
        info.append(f"{id},100,10.0,10,10,{SUBSETS[id]},100")
        rows = ["x,y,z", *(",".join(map(repr, row)) for row in features(20, 3).tolist())]
        write(root / "csv_mean_100" / f"{id}.csv", "\n".join(rows))
    write(root / "anet_anno_action.json", json.dumps(entries))
    write(root / "video_info_new.csv", "\n".join(info))
    write(root / "points.csv", POINTS)
    return ["--layout", "bmn", root]


def epic(root: Path) -> Words:
    write(root / "EPIC_100_verb_classes.csv", "id,key\n0,open\n1,close\n")
    rows = [f"{id},10.0,50" for id in SEGMENTS]
    write(root / "EPIC_100_video_info.csv", "\n".join(["video_id,duration,fps", *rows]))
    for name, ids in (("train", "ab"), ("validation", "c")):
        rows = [f"{id},00:00:0{s}.00,00:00:0{e}.00,{int(label == 'close')}"
                for id in ids for s, e, label in SEGMENTS[id]]  # fmt: skip
        head = "video_id,start_timestamp,stop_timestamp,verb_class"
        write(root / f"EPIC_100_{name}.csv", "\n".join([head, *rows]))
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npz", feats=features(18))
    return ["--layout", "epic", root, "--task", "verb", "--simulate-points", "centre"]


def sfnet(root: Path) -> Words:
    words: Words = arrays_release(root)
    place = root / "Tiny-Annotations"
    (place / "segments.npy").unlink()
    segments = [[[s, e] for s, e, _ in rows] for rows in SEGMENTS.values()]
    write(place / "segments.json", json.dumps(segments))
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npy", features(16))
    return [*words, "--allow-length"]


def signals(root: Path) -> Words:
    write(root / "annotations.json", json.dumps({"database": database()}))
    write(root / "points.csv", "class,video_id,time_s\nopen,a,2\nclose,a,7\nclose,b,3\n")
    for id in SEGMENTS:
        rows = np.random.default_rng(0).normal(3, 2, (200, 2)).tolist()
        write(root / "signals" / f"{id}.csv", "\n".join(",".join(map(repr, r)) for r in rows))
    return ["--layout", "signals", root, "--rate", 20, "--window", 20, "--stride", 10]


RELEASES: dict[str, Callable[[Path], Words]] = {
    "plain": plain,
    "actionformer": lambda root: frames_release(root, fps=10),
    "opentad": opentad,
    "lacp": streams("lacp"),
    "potloc": streams("potloc"),
    "hrpro": hrpro,
    "bmn": bmn,
    "mstcn": transcripts,
    "epic": epic,
    "sfnet": sfnet,
    "signals": signals,
}


pytestmark = pytest.mark.usefixtures("data_folder")


def test_every_layout_is_here() -> None:
    assert set(RELEASES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", RELEASES)
def test_videos_and_classes_are_left_out_of_every_layout(layout: str, root: Path) -> None:
    words = RELEASES[layout](root)
    store = imported(*words, "--exclude", "b")
    assert (store.ids("train"), store.ids("test")) == (("a",), ("c",))
    store = imported(*words, "--drop-label", "close", "--replace")
    assert store.info.classes == ("open",)
    assert store.ids("train") == ("a",)  # nothing of the other class is left in b
    assert len(store.annotations("a")) == len(store.points("a")) == 1


@pytest.mark.parametrize("separator", [", ", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("layout", ["plain", "lacp", "hrpro", "bmn", "epic", "sfnet", "signals"])
def test_csv_files_of_other_programs_give_the_same_store(
    layout: str, encoding: str, separator: str, root: Path
) -> None:
    words = RELEASES[layout](root)
    expected = imported(*words).info.content_hash
    files = [*root.rglob("*.csv"), *root.rglob("single_frames/*.txt")]
    assert files
    for file in files:
        text = file.read_text().replace(",", separator).replace("\n", "\r\n")
        file.write_bytes(text.encode(encoding))
        assert file.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE))
    assert imported(*words, "--replace").info.content_hash == expected


@pytest.mark.parametrize(
    "text", ["a\nb\n", "a,x\nb,y\n", "a; x\nb\n\n", '"a"\tx\nb,\n', "a b\nb\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_of_excluded_videos_may_have_more_columns(
    text: str, encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_bytes(text.encode(encoding))
    assert named_ids(str(tmp_path / "out.csv")) == {"a", "b"}
