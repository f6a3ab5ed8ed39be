"""Layouts with real annotation files: features simulated at the lengths that they have there."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from conftest import shared

from ptal_ray.data.__main__ import main
from ptal_ray.data.datasets import find

DIM = 8
# Videos of the split lists for training and test, instances, points.
SETS = {
    "THUMOS14": ((200, 210), 6318, 3003),
    "GTEA": ((21, 7), 497, 367),
    "BEOID": ((46, 12), 742, 594),
}


pytestmark = pytest.mark.usefixtures("data_folder")


def imported(name, *words):
    assert main(["import", name, *map(str, words)]) == 0
    return find(name)


def videos(name):
    return json.loads(shared(f"data/annotations/{name}").read_text())


def varied(snippets, dim=DIM):
    """Numbers of which no channel has one value."""
    return np.resize(np.linspace(0, 1, 97, dtype=np.float32), (snippets, dim))


def save(path, snippets, dim=DIM):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, varied(max(1, round(snippets)), dim).astype(np.float16))


def link(root, name):
    """The release with its real files; returns its videos."""
    for file in shared(f"data/annotations/{name}").iterdir():
        os.symlink(file, root / file.name)
    return videos(f"{name}/gt_full.json")["database"]


def counts(store):
    ids = {subset: store.ids(subset) for subset in ("train", "test")}
    instances = sum(len(store.annotations(id)) for each in ids.values() for id in each)
    points = sum(len(store.points(id)) for id in ids["train"])
    return tuple(map(len, ids.values())), instances, points


def native(name, entry):
    """Frames a second that the published features of the set count."""
    return 25 if name == "THUMOS14" else entry["fps"]


def length(name, entry):
    return entry["duration"] * native(name, entry) / 16


@pytest.mark.parametrize("name", SETS)
def test_hrpro(root, name):
    for id, entry in link(root, name).items():
        save(root / "features" / f"{id}.npy", length(name, entry))
    flags = [] if name == "THUMOS14" else ["--fps", "json"]
    assert counts(imported("x", "--layout", "hrpro", root, *flags)) == SETS[name]


@pytest.mark.parametrize("name", SETS)
def test_lacp(root, name):
    """Numbers as text, no durations, frame rates apart, as that release has them."""
    entries = link(root, name)
    for id, entry in entries.items():
        for stream in ("rgb", "flow"):
            save(root / "features" / "train" / stream / f"{id}.npy", length(name, entry))
    (root / "fps_dict.json").write_text(json.dumps({i: str(e["fps"]) for i, e in entries.items()}))
    bare = {
        id: {
            "subset": entry["subset"],
            "annotations": [
                {"segment": [*map(str, item["segment"])], "label": item["label"]}
                for item in entry["annotations"]
            ],
        }
        for id, entry in entries.items()
    }
    (root / "gt.json").write_text(json.dumps({"database": bare}))
    rate = {"THUMOS14": 25, "GTEA": 15, "BEOID": 30}[name]
    store = imported("x", "--layout", "lacp", root, "--fps", rate)
    assert counts(store) == SETS[name] and store.info.feature_dim == 2 * DIM


def test_actionformer_on_thumos14(root):
    """Features 4 frames apart that see 16, at the frame rate of each video."""
    (root / "annotations").mkdir()
    os.symlink(
        shared("data/annotations/THUMOS14/gt_full.json"), root / "annotations" / "thumos14.json"
    )
    entries = videos("THUMOS14/gt_full.json")["database"]
    for id, entry in entries.items():
        save(root / "i3d_features" / f"{id}.npy", entry["duration"] * entry["fps"] / 4 - 3)
    store = imported(
        "thumos14", "--layout", "actionformer", root, "--stride", 4, "--window", 16,
        "--point-kind", "gaussian", "--exclude", "video_test_0000270",
    )  # fmt: skip
    assert counts(store)[0] == (200, 211)
    grids = {id: store.grid(id) for id in store.ids("train")}
    assert {round(4 / g.stride_s, 2) for g in grids.values()} == {24, 25, 29.97, 30}
    assert all(g.offset_s == pytest.approx(1.5 * g.stride_s) for g in grids.values())


def first_of(name, number):
    """Some videos of a large file: every k-th, in file order."""
    content = videos(name)
    entries = content.get("database", content)
    step = len(entries) // number
    return dict(list(entries.items())[::step])


@pytest.mark.parametrize(
    "name",
    [
        "ActivityNet1.2/activity_net.v1-2.min-missing-removed.json",
        "ActivityNet1.3-BMN/anet13_gt_activitynet_format.json",
    ],
)
def test_opentad_on_activitynet(root, name):
    entries = first_of(name, 300)
    (root / "anet_anno.json").write_text(json.dumps({"database": entries}))
    missing = list(entries)[:2]
    for id, entry in entries.items():
        if id not in missing:
            save(root / "features" / f"v_{id}.npy", entry["duration"] * 30 / 16)
    (root / "features" / "missing_files.txt").write_text("".join(f"v_{id}\n" for id in missing))
    store = imported(
        "anet13", "--layout", "opentad", root, "--fps", 30, "--stride", 16, "--drop-invalid",
        "--point-kind", "centre",
    )  # fmt: skip
    kept = [id for id in entries if id not in missing]
    annotated = [id for id in kept if entries[id]["annotations"]]
    assert set(annotated) <= {*store.ids("train"), *store.ids("test")} <= set(kept)


def test_bmn_on_activitynet(root):
    """Real annotations and video information; 100 x 400 numbers a video, as text."""
    info = shared("data/annotations/ActivityNet1.3-BMN/video_info_new.csv")
    os.symlink(info, root / "video_info_new.csv")
    entries = first_of("ActivityNet1.3-BMN/anet_anno_action.json", 100)
    (root / "anet_anno_action.json").write_text(json.dumps(entries))
    points = shared("data/annotations/ActivityNet1.3/point_labels/point_gaussian.csv")
    head, *lines = points.read_text().splitlines()
    kept = [line for line in lines if line.split(",")[3] in entries]
    (root / "points.csv").write_text("\n".join([head, *kept]))
    rows = [",".join(map(str, row)) for row in varied(100, 400).tolist()]
    text = "\n".join([",".join(f"x{d}" for d in range(400)), *rows])
    (root / "csv_mean_100").mkdir()
    for id in entries:
        (root / "csv_mean_100" / f"{id}.csv").write_text(text)
    store = imported(
        "anet13", "--layout", "bmn", root, "--drop-invalid"
    )  # fmt: skip
    assert store.info.feature_dim == 400
    for id in store.ids("train"):
        entry = entries[id]
        covered_s = entry["duration_second"] * entry["feature_frame"] / entry["duration_frame"]
        assert store.length(id) == 100
        assert 100 * store.grid(id).stride_s == pytest.approx(covered_s)
        assert len(store.points(id)) == len(entry["annotations"])


def test_mstcn_on_gtea(root):
    """Transcripts written from the real instances, where they do not overlap."""
    entries = videos("GTEA/gt_full.json")["database"]
    names = sorted({item["label"] for entry in entries.values() for item in entry["annotations"]})
    lines = [f"{k} {name}" for k, name in enumerate([*names, "background"])]
    (root / "mapping.txt").write_text("\n".join(lines))
    for folder in ("groundTruth", "splits", "features"):
        (root / folder).mkdir()
    bundles = {"training": [], "validation": []}
    for id, entry in entries.items():
        frames = ["background"] * entry["num_frames"]
        for item in entry["annotations"]:
            first, last = (round(edge * 15) for edge in item["segment"])
            frames[first:last] = [item["label"]] * (min(last, len(frames)) - first)
        (root / "groundTruth" / f"{id}.txt").write_text("\n".join(frames))
        np.save(root / "features" / f"{id}.npy", varied(len(frames)).T)
        bundles[entry["subset"]].append(f"{id}.txt")
    for name, subset in (("train", "training"), ("test", "validation")):
        (root / "splits" / f"{name}.split1.bundle").write_text("\n".join(bundles[subset]))
    store = imported("gtea", "--layout", "mstcn", root, "--fps", 15, "--point-kind", "uniform")
    assert counts(store)[0] == (21, 7) and store.info.classes == tuple(names)
    for id, entry in entries.items():
        assert store.length(id) == entry["num_frames"]
        found = {round(s * 15) for s in store.annotations(id).start_s.tolist()}
        assert found <= {round(item["segment"][0] * 15) for item in entry["annotations"]} | {
            round(item["segment"][1] * 15) for item in entry["annotations"]
        }


@pytest.mark.parametrize("task", ["verb", "noun"])
def test_epic_on_verbs_and_nouns_of_beoid(root, task):
    """The CSVs of EPIC-Kitchens-100, written from BEOID, whose labels are verb_noun."""
    entries = videos("BEOID/gt_full.json")["database"]
    words = {"verb": {}, "noun": {}}
    rows = {"train": [], "validation": []}
    info = [("video_id", "duration", "fps", "resolution")]
    for id, entry in entries.items():
        info.append((id, entry["duration"], entry["fps"], "640x480"))
        for item in entry["annotations"]:
            names = dict(zip(("verb", "noun"), item["label"].split("_"), strict=True))
            index = {kind: words[kind].setdefault(n, len(words[kind])) for kind, n in names.items()}
            times = [f"00:{int(s // 60):02d}:{s % 60:06.3f}" for s in item["segment"]]
            subset = "train" if entry["subset"] == "training" else "validation"
            rows[subset].append((id, *times, index["verb"], index["noun"]))
    head = ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
    tables = {f"EPIC_100_{name}.csv": [head, *lines] for name, lines in rows.items()}
    tables["EPIC_100_video_info.csv"] = info
    for kind, known in words.items():
        classes = [(k, name, 1, "x") for name, k in known.items()]
        tables[f"EPIC_100_{kind}_classes.csv"] = [("id", "key", "instances", "category"), *classes]
    for name, lines in tables.items():
        with (root / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    (root / "features").mkdir()
    for id, entry in entries.items():
        array = varied(round(entry["duration"] * 30 / 16) - 1)
        np.savez(root / "features" / f"{id}.npz", feats=array)
    store = imported(f"epic_{task}", "--layout", "epic", root, "--task", task,
        "--point-kind", "gaussian")  # fmt: skip
    assert counts(store)[:2] == ((46, 12), 742)
    assert store.info.classes == tuple(words[task])


def test_sfnet_on_beoid(root):
    """Arrays and single frames written from BEOID; ragged ones as JSON."""
    entries = videos("BEOID/gt_full.json")["database"]
    place = root / "BEOID-Annotations"
    (place / "single_frames").mkdir(parents=True)
    np.save(place / "videoname.npy", np.array([id.encode() for id in entries]))
    np.save(place / "subset.npy", np.array([
        b"validation" if e["subset"] == "training" else b"test" for e in entries.values()
    ]))  # fmt: skip
    np.save(place / "duration.npy", np.array([e["duration"] for e in entries.values()]))
    for name, key in (("segments", "segment"), ("labels", "label")):
        columns = [[item[key] for item in e["annotations"]] for e in entries.values()]
        (place / f"{name}.json").write_text(json.dumps(columns))
    points = shared("data/annotations/BEOID/point_labels/point_gaussian.csv")
    with points.open() as file:
        lines = [f"{r['video_id']},{int(r['point']) / 30},{r['class']}"
                 for r in csv.DictReader(file)]  # fmt: skip
    (place / "single_frames" / "BEOID1.txt").write_text("\n\n".join(lines))
    for id, entry in entries.items():
        save(root / "features" / f"{id}.npy", length("BEOID", entry))
    assert counts(imported("x", "--layout", "sfnet", root, "--fps", 30)) == SETS["BEOID"]
