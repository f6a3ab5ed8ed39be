"""Every layout that `import --layout` reads, on small folders of it that the tests write."""

from __future__ import annotations

import json

import numpy as np
import pytest
from released_folder import (
    POINTS,
    RNG,
    SEGMENTS,
    SUBSETS,
    annotations,
    database,
    features,
    frames_release,
    imported,
    is_the_small_one,
    refused,
    save,
    write,
)

from ptal_ray.data.__main__ import main
from ptal_ray.data.features.feature_file import npy
from ptal_ray.data.features.preparation import Preparation

pytestmark = pytest.mark.usefixtures("data_folder")


def test_plain_is_the_default_and_takes_a_folder_too(root):
    write(root / "gt.json", json.dumps({"database": database(fps=10)}))
    write(root / "points.csv", POINTS)
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npy", features())
    first = imported("--layout", "plain", root, "--features", root / "features",
        "--annotations", root / "gt.json", "--fps", 10, "--stride", 5,
        "--points", root / "points.csv")  # fmt: skip
    hash = is_the_small_one(first).info.content_hash
    found = imported("--layout", "plain", root, "--stride", 5, "--replace")
    assert found.info.content_hash == hash


def test_a_layout_needs_a_known_name_and_one_folder(capsys):
    for words in (["other"], ["plain", "a", "b"]):
        with pytest.raises(SystemExit) as caught:
            main(["import", "x", "--layout", *words])
        assert caught.value.code == 2
    assert "choose from plain, signals" in capsys.readouterr().err
    assert "--annotations or the folder" in refused(
        capsys, "--layout", "actionformer", "--stride", 4, code=2
    )
    assert "no such folder" in refused(capsys, "--layout", "hrpro", "/nowhere")


@pytest.mark.parametrize(
    "words",
    [
        ["plain", "--key", "feats"],
        ["hrpro", "--split", 2],
        ["mstcn", "--window", 16],
        ["bmn", "--fps", 25],
        ["sfnet", "--task", "noun"],
    ],
)
def test_flags_of_other_layouts_are_refused(root, words, capsys):
    layout, flag, value = words
    more = ["--features", root, "--annotations", root, "--point-kind", "centre"]
    more += ["--fps", 1, "--stride", 1] if layout == "plain" else []
    message = refused(capsys, "--layout", layout, root, flag, value, *more, code=2)
    assert message == f"error: {flag} does not apply to --layout {layout}; remove it\n"


# signals


def test_actionformer_reads_stride_window_rate_prefix_and_key(root, capsys):
    words = frames_release(root, prefix="v_", suffix="-x.npz", fps=10)
    words += ["--prefix", "v_", "--suffix=-x.npz"]
    store = is_the_small_one(imported(*words), stride_s=0.5, offset_s=0.5, length=18)
    with np.load(root / "i3d_features" / "v_a-x.npz") as arrays:
        np.testing.assert_array_equal(store.video("a").features, arrays["feats"])
    np.testing.assert_array_equal(store.points("a").time_s, [2, 7])
    assert "no array 'other'; pass --key with one of feats" in refused(
        capsys, *words, "--key", "other"
    )
    assert "pass --stride" in refused(capsys, *words[:3], code=2)


def test_a_rate_follows_from_the_frames(root):
    store = imported(*frames_release(root, suffix=".npy", frame=100))
    is_the_small_one(store, offset_s=0.5, length=18)


def test_a_damaged_archive_is_named(root, capsys):
    words = frames_release(root, fps=10)
    content = (root / "i3d_features" / "b.npz").read_bytes()
    (root / "i3d_features" / "b.npz").write_bytes(content[: len(content) // 2])
    assert "b.npz: not whole" in refused(capsys, *words)
    save(root / "i3d_features" / "b.npz", feats=np.array([{}], object))
    assert "b.npz" in refused(capsys, *words)


def test_numbers_behind_a_sound_header_are_validated_too(root, capsys):
    words = frames_release(root, suffix=".csv", names="", fps=10)
    (root / "i3d_features").mkdir()
    for id in SEGMENTS:
        rows = [["1", "2", str(t)] for t in range(18)]
        rows[7][1] = "x" if id == "b" else "2"
        write(root / "i3d_features" / f"{id}.csv", "\n".join(map(",".join, rows)))
    assert main(["validate", "tiny", *map(str, words)]) == 3
    captured = capsys.readouterr()
    assert "b.csv: not whole, or not numbers" in captured.out
    assert "error: tiny: 1 problem (feature files that cannot be read)" in captured.err


def test_a_missing_file_can_be_excluded_and_a_label_dropped(root, capsys):
    words = frames_release(root, names="ac", fps=10)
    assert "b.npy: feature file is missing" in refused(capsys, *words)
    write(root / "out.txt", "v_b  0.0 1.4\nnobody\n")
    store = imported(*words, "--exclude", root / "out.txt")
    assert store.ids("train") == ("a",)
    text = capsys.readouterr().out
    assert "videos excluded: 1" in text and "excluded names that match no video: 1" in text
    store = imported(*words, "--exclude", "b,", "--drop-label", "close", "--replace")
    assert store.info.classes == ("open",) and len(store.annotations("a")) == 1
    assert "instances of dropped classes: 1" in capsys.readouterr().out
    assert "lost.txt: there is no such file" in refused(capsys, *words, "--exclude", "lost.txt")
    assert "no instance has the class 'cloze'" in refused(capsys, *words, "--drop-label", "cloze")


def test_points_of_dropped_classes_and_excluded_videos_go_with_them(root, capsys):
    words = frames_release(root, fps=10)[:-2]
    write(root / "points.csv", POINTS)
    words += ["--points", root / "points.csv"]
    store = imported(*words, "--drop-label", "close")
    assert store.ids("train") == ("a",) and len(store.points("a")) == 1
    store = imported(*words, "--exclude", "b", "--replace")
    assert store.ids("train") == ("a",) and len(store.points("a")) == 2
    assert "points of excluded videos, left out: 1" in capsys.readouterr().out


def test_opentad_leaves_out_missing_files_and_ambiguous_instances(root, capsys):
    frames_release(root, suffix=".npy", names="ac", frame=100)
    path = root / "annotations" / "set.json"
    content = json.loads(path.read_text())
    content["database"]["a"]["annotations"].append({"segment": [1, 2], "label": "Ambiguous"})
    write(path, json.dumps(content))
    write(root / "i3d_features" / "missing_files.txt", "b\n")
    write(root / "annotations" / "category_idx.txt", "open\nclose\n")
    words = ["--stride", 5, "--window", 15, "--simulate-points", "boundary"]
    store = imported("--layout", "opentad", root, *words)
    assert (store.ids("train"), store.info.classes) == (("a",), ("open", "close"))
    assert len(store.annotations("a")) == 2
    assert "no stride" not in capsys.readouterr().out


# lacp and potloc, hrpro


def two_streams(root, splits):
    rows = {id: [{"segment": [str(s), str(e)], "label": label} for s, e, label in segments]
            for id, segments in SEGMENTS.items()}  # fmt: skip
    videos = {id: {"subset": SUBSETS[id], "annotations": rows[id]} for id in SEGMENTS}
    write(root / "gt.json", json.dumps({"database": videos}))
    write(root / "fps_dict.json", json.dumps(dict.fromkeys(SEGMENTS, "10")))
    write(root / "point_gaussian" / "point_labels.csv", POINTS)
    write(root / "split_train.txt", "a\nb\n")
    write(root / "split_test.txt", "c\n")
    arrays = {}
    for id in SEGMENTS:
        for stream in ("rgb", "flow"):
            arrays[id, stream] = features(16)
            split = "test" if id == "c" else "train"
            save(root / "features" / splits.format(split, stream) / f"{id}.npy", arrays[id, stream])
    return arrays


@pytest.mark.parametrize("layout", ["lacp", "potloc"])
@pytest.mark.parametrize("splits", ["{0}/{1}", "{1}/{0}", "{1}"])
def test_rgb_and_flow_are_side_by_side_and_give_the_duration(root, layout, splits):
    arrays = two_streams(root, splits)
    store = imported("--layout", layout, root)
    is_the_small_one(store, dim=8, stride_s=0.64, length=16)
    expected = np.hstack([arrays["c", "rgb"], arrays["c", "flow"]])
    np.testing.assert_array_equal(store.video("c").features, expected)
    assert store.duration_s("a") == pytest.approx(16 * 0.64)
    np.testing.assert_array_equal(store.points("a").time_s, [2, 7])  # at 10 fps, by fps_dict.json


def test_streams_of_different_lengths_are_refused(root, capsys):
    two_streams(root, "{0}/{1}")
    save(root / "features" / "train" / "flow" / "b.npy", features(15))
    assert "flow/b.npy: shape (15, 4), but" in refused(capsys, "--layout", "lacp", root)


def test_hrpro_takes_points_by_the_rate_of_each_video(root):
    write(root / "gt_full.json", json.dumps({"database": database(fps=10)}))
    write(root / "point_labels" / "point_gaussian.csv", POINTS)
    write(root / "split_train.txt", "a\nb\n")
    write(root / "split_test.txt", "c\n")
    for id in SEGMENTS:
        save(root / "features" / ("test" if id == "c" else "train") / f"{id}.npy", features(16))
    store = is_the_small_one(imported("--layout", "hrpro", root), stride_s=0.64, length=16)
    np.testing.assert_array_equal(store.points("a").time_s, [2, 7])


def test_split_lists_may_name_excluded_videos(root):
    two_streams(root, "{0}/{1}")
    (root / "features" / "train" / "rgb" / "b.npy").unlink()
    store = imported("--layout", "lacp", root, "--exclude", "b")
    assert (store.ids("train"), store.ids("test")) == (("a",), ("c",))


# bmn


def test_bmn_videos_have_a_grid_of_their_own(root, capsys):
    entries, info = {}, ["video,numFrame,seconds,fps,rfps,subset,featureFrame"]
    for id in SEGMENTS:
        entries[id] = {"duration_second": 10.0, "duration_frame": 100, "annotations":
            annotations(id), "feature_frame": 100 if id == "a" else 96}  # fmt: skip
        info.append(f"{id},100,10.0,10,10,{SUBSETS[id]},96")
        array = RNG.random((20, 3))
        rows = ["x,y,z", *(",".join(map(repr, row)) for row in array.tolist())]
        write(root / "csv_mean_100" / f"{id}.csv", "\n".join(rows))
    write(root / "anet_anno_action.json", json.dumps(entries))
    write(root / "video_info_new.csv", "\n".join(info))
    write(root / "points.csv", POINTS)
    store = imported("--layout", "bmn", root)
    assert store.grid("a").stride_s == pytest.approx(0.5)
    assert store.grid("b").stride_s == pytest.approx(0.48) and store.grid("b").offset_s == 0
    np.testing.assert_allclose(store.video("c").features, array, rtol=1e-6)
    np.testing.assert_array_equal(store.points("b").time_s, [3])
    entries["a"]["feature_frame"] = 0
    write(root / "anet_anno_action.json", json.dumps(entries))
    assert "video a: duration_second" in refused(capsys, "--layout", "bmn", root)


# mstcn


def transcripts(root):
    write(root / "mapping.txt", "0 open\n1 close\n2 background\n")
    write(root / "splits" / "train.split2.bundle", "a.txt\nb.txt\n")
    write(root / "splits" / "test.split2.bundle", "c.txt\n")
    for id, segments in SEGMENTS.items():
        frames = ["background"] * 100
        for start, end, label in segments:
            frames[start * 10 : end * 10] = [label] * (10 * (end - start))
        write(root / "groundTruth" / f"{id}.txt", "\n".join(frames) + "\n")
        save(root / "features" / f"{id}.npy", features(4, 100))
    return ["--layout", "mstcn", root, "--fps", 10, "--split", 2, "--simulate-points", "uniform"]


def test_transcripts_become_instances_and_features_are_turned(root):
    store = is_the_small_one(imported(*transcripts(root)), stride_s=0.1, length=100)
    assert store.info.classes == ("open", "close")
    expected = np.load(root / "features" / "a.npy").T
    np.testing.assert_array_equal(store.video("a").features, expected)
    made = store.preparation.opened(npy(root / "features" / "a.npy"))
    np.testing.assert_array_equal(made.read(), store.video("a").features)
    words = [*transcripts(root), "--stride", 3, "--replace"]
    store = is_the_small_one(imported(*words), stride_s=0.3, offset_s=-0.1, length=34)
    expected = np.load(root / "features" / "a.npy").T[::3]
    np.testing.assert_array_equal(store.video("a").features, expected)
    made = store.preparation.opened(npy(root / "features" / "a.npy"))  # as a prediction does
    assert made.shape() == expected.shape
    np.testing.assert_array_equal(made.read(), expected)
    assert Preparation.of(store.preparation.plain()) == store.preparation


def test_wrong_transcripts_are_refused(root, capsys):
    words = transcripts(root)
    assert "pass --fps NUMBER" in refused(capsys, "--layout", "mstcn", root, code=2)
    assert "no splits/train.split1.bundle" in refused(capsys, *words, "--split", 1)
    write(root / "splits" / "test.split2.bundle", "c.txt\nb.txt\n")
    assert "b is in both bundles of split 2" in refused(capsys, *words)
    write(root / "splits" / "test.split2.bundle", "c.txt\n")
    save(root / "features" / "b.npy", features(4, 60))
    assert "cover" in refused(capsys, *words)
    write(root / "groundTruth" / "b.txt", "opened\n")
    assert "b.txt: label 'opened' is not in" in refused(capsys, *words)


# epic


@pytest.mark.parametrize("task", ["verb", "noun"])
def test_epic_reads_verbs_or_nouns(root, task, capsys):
    other = "noun" if task == "verb" else "verb"
    write(root / f"EPIC_100_{task}_classes.csv", "id,key,category\n0,open,x\n1,close,x\n2,unused,x")
    write(
        root / "EPIC_100_video_info.csv", "video_id,duration,fps\na,10.0,50\nb,10.0,50\nc,10.0,60"
    )
    head = f"video_id,start_timestamp,stop_timestamp,{task}_class,{other}_class"
    for name, ids in (("train", "ab"), ("validation", "c")):
        rows = [
            f"{id},00:00:0{s}.00,00:00:0{e}.000,{0 if label == 'open' else 1},9"
            for id in ids
            for s, e, label in SEGMENTS[id]
        ]
        write(root / f"EPIC_100_{name}.csv", "\n".join([head, *rows]))
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npz", feats=features(18))
    words = ["--layout", "epic", root, "--task", task, "--simulate-points", "gaussian"]
    store = imported(*words)
    assert store.info.classes == ("open", "close", "unused")
    assert store.grid("a").stride_s == pytest.approx(16 / 30)
    assert store.grid("a").offset_s == pytest.approx(8 / 30)
    np.testing.assert_array_equal(store.annotations("a").start_s, [1, 5])
    np.testing.assert_array_equal(store.annotations("a").label, [0, 1])
    rows.append(rows[0].replace("c,", "a,"))
    write(root / "EPIC_100_validation.csv", "\n".join([head, *rows]))
    assert "video a is also in EPIC_100_train.csv" in refused(capsys, *words, "--replace")
    (root / "EPIC_100_video_info.csv").write_text("video_id,duration\na,10")
    assert "video b is not in EPIC_100_video_info.csv" in refused(capsys, *words, "--replace")


# sfnet


def arrays_release(root):
    place = root / "Tiny-Annotations"
    save(place / "videoname.npy", np.array([b"a", b"b", b"c"]))
    save(place / "subset.npy", np.array([b"validation", b"validation", b"test"]))
    save(place / "duration.npy", np.full(3, 10.0))
    ragged = np.empty(3, object)
    ragged[:] = [[[s, e] for s, e, _ in rows] for rows in SEGMENTS.values()]
    save(place / "segments.npy", ragged)
    write(place / "labels.json", json.dumps([[n for *_, n in r] for r in SEGMENTS.values()]))
    rows = ["a,2.0,open", "a,7,close ", "b,3.0,close"]
    write(place / "single_frames" / "TINY1.txt", "\n\n".join(rows))
    write(place / "single_frames" / "TINY2.txt", "a,2.0,open")
    return ["--layout", "sfnet", root]


def test_pickled_arrays_are_never_loaded_and_the_message_converts_them(root, capsys, monkeypatch):
    words, place = arrays_release(root), root / "Tiny-Annotations"
    for id in SEGMENTS:
        save(root / "features" / f"{id}.npy", features(16))
    message = refused(capsys, *words)
    assert "segments.npy: an array of Python objects" in message
    monkeypatch.chdir(place)
    command = message.split('python -c "')[1].split('"')[0]
    exec(command, {})  # as a user would run it, on arrays that the test made
    store = is_the_small_one(imported(*words), stride_s=0.64, length=16)
    np.testing.assert_array_equal(store.points("a").time_s, [2, 7])
    save(place / "videoname.npy", np.array([b"a", b"b", b"a"]))
    assert "videoname has a twice" in refused(capsys, *words)
    save(place / "videoname.npy", np.array([b"a", b"b", b"c"]))
    write(place / "labels.json", "[[]]")
    assert "1 values in labels, 3 in videoname" in refused(capsys, *words)


def test_pickled_features_are_refused_with_the_command(root, capsys, monkeypatch):
    words, place = arrays_release(root), root / "Tiny-Annotations"
    write(place / "segments.json", json.dumps([[r[:2] for r in v] for v in SEGMENTS.values()]))
    joint = np.empty(3, object)
    joint[:] = [features(16) for _ in SEGMENTS]
    save(root / "Tiny-I3D-JOINTFeatures.npy", joint)
    message = refused(capsys, *words)
    assert "Tiny-I3D-JOINTFeatures.npy: an array of Python objects" in message
    monkeypatch.chdir(root)
    exec(message.split('python -c "')[1].split('"')[0], {})
    store = is_the_small_one(imported(*words), stride_s=0.64, length=16)
    np.testing.assert_array_equal(store.video("b").features, joint[1])


def test_features_of_a_layout_are_turned_on_demand(root, capsys):
    words = frames_release(root, suffix=".npy", fps=10)
    for id in SEGMENTS:
        save(root / "i3d_features" / f"{id}.npy", features(4, 18))
    assert "pass --transpose" in refused(capsys, *words)
    store = is_the_small_one(imported(*words, "--transpose"), offset_s=0.5, length=18)
    expected = np.load(root / "i3d_features" / "b.npy").T
    np.testing.assert_array_equal(store.video("b").features, expected)


def test_a_file_may_have_its_name_in_another_unicode_form(root, capsys):
    words = frames_release(root, suffix=".npy", fps=10)
    path = root / "annotations" / "set.json"
    write(path, path.read_text().replace('"b"', '"caf\\u00e9"'))
    (root / "i3d_features" / "b.npy").rename(root / "i3d_features" / "cafe\u0301.npy")
    assert imported(*words).ids("train") == ("a", "caf\u00e9")
    save(root / "i3d_features" / "caf\u00e9.npy", features(18))
    assert "two files of this name" in refused(capsys, *words)
