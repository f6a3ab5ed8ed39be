"""Recordings of sensors, and features normalized by the training split."""

from __future__ import annotations

import json
from unicodedata import normalize

import numpy as np
import pytest
from conftest import shared
from released_folder import (
    RNG,
    SEGMENTS,
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
from ptal_ray.data.datasets import find
from ptal_ray.data.features.feature_file import table
from ptal_ray.errors import DataError

pytestmark = pytest.mark.usefixtures("data_folder")


@pytest.fixture
def signals(root):
    write(root / "annotations.json", json.dumps({"database": database()}))
    write(root / "points.csv", "class,video_id,time_s\nopen,a,2\nclose,a,7\nclose,b,3\n")
    for id in SEGMENTS:
        save(root / "signals" / f"{id}.npy", RNG.normal(3, 2, (200, 2)))
    return root


WINDOWS = ["--rate", 20, "--window", 20, "--stride", 10]


def test_signals_become_z_scores_by_the_training_split(signals, capsys):
    store = imported("--layout", "signals", signals, *WINDOWS)
    is_the_small_one(store, dim=25, stride_s=0.5, offset_s=0.25, length=19)
    train = np.concatenate([store.video(id).features for id in "ab"])
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)
    assert abs(store.video("c").features.mean(axis=0)).max() > 1e-3
    assert "z-scores of the training split" in store.info.note
    plain = imported("--layout", "signals", signals, *WINDOWS, "--normalize", "none", "--replace")
    samples = np.load(signals / "signals" / "a.npy")
    means = [samples[k : k + 20].mean(axis=0) for k in range(0, 181, 10)]
    np.testing.assert_allclose(plain.video("a").features[:, :2], means, rtol=1e-5)
    capsys.readouterr()
    assert main(["validate", "tiny", "--layout", "signals", str(signals), *map(str, WINDOWS)]) == 0


def test_the_test_split_does_not_change_the_scale(signals):
    first = imported("--layout", "signals", signals, *WINDOWS).video("a").features.copy()
    save(signals / "signals" / "c.npy", RNG.normal(300, 20, (200, 2)))
    second = imported("--layout", "signals", signals, *WINDOWS, "--replace")
    np.testing.assert_array_equal(second.video("a").features, first)


@pytest.mark.parametrize("mark", [",", ", ", ";", "\t", " "])
def test_signals_of_a_csv_are_those_of_the_npy(signals, mark):
    expected = imported("--layout", "signals", signals, *WINDOWS).video("b").features.copy()
    for id in SEGMENTS:
        samples = np.load(signals / "signals" / f"{id}.npy")
        rows = [mark.join(map(repr, row)) for row in samples.tolist()]
        write(signals / "signals" / f"{id}.csv", "\n".join([mark.join("xy"), *rows]))
        (signals / "signals" / f"{id}.npy").unlink()
    found = imported("--layout", "signals", signals, *WINDOWS, "--replace").video("b").features
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(200), r"shape (200,); must be (samples, channels)"),
        (np.zeros((19, 2)), "19 samples are fewer than a window of 20"),
        (np.zeros((300, 2)), "cover"),
        (np.full((200, 2), np.nan), "must be finite"),
    ],
)
def test_wrong_signals_are_refused(signals, samples, message, capsys):
    save(signals / "signals" / "a.npy", samples)
    assert message in refused(capsys, "--layout", "signals", signals, *WINDOWS)


def test_a_number_that_spoils_the_scale_is_found_in_its_video(signals, capsys):
    samples = np.load(signals / "signals" / "b.npy")
    samples[30, 1] = np.inf
    save(signals / "signals" / "b.npy", samples)
    message = refused(capsys, "--layout", "signals", signals, *WINDOWS)
    assert "b.npy: sample 31, channel 2 (counted from 1) is inf, the first of 1; samples" in message
    words = ["--layout", "plain", signals, "--annotations", signals / "annotations.json",
             "--features", signals / "signals", "--fps", 20, "--stride", 1]  # fmt: skip
    message = refused(capsys, *words, "--normalize", "train")
    assert "video b: features[30, 1] is inf" in message


TABLE = """video,class,start_s,end_s
c,open,1.5,4
c,close,5,8.25
"""


def with_table(signals, text=TABLE):
    (signals / "annotations.json").unlink(missing_ok=True)
    write(signals / "segments.csv", text)
    return ["--layout", "signals", signals, *WINDOWS]


def test_segments_may_be_a_table(signals, capsys):
    store = imported(*with_table(signals))
    assert (store.ids("train"), store.ids("test")) == (("a", "b"), ("c",))
    assert store.info.classes == ("close", "open")
    assert [store.duration_s(id) for id in "abc"] == [10.0] * 3
    found = store.annotations("c")
    assert (found.start_s.tolist(), found.end_s.tolist()) == ([1.5, 5.0], [4.0, 8.25])
    assert [store.info.classes[k] for k in found.label] == ["open", "close"]
    assert not len(store.annotations("a")) and len(store.points("a")) == 2
    more = TABLE.replace("end_s", "end_s,subset") + "a,open,1,3,train\na,close,6,8,train\n"
    store = imported(*with_table(signals, more), "--replace")
    assert (store.ids("train"), len(store.annotations("a"))) == (("a", "b"), 2)


def test_tables_beside_recordings_are_no_recordings(signals, capsys, monkeypatch):
    for path in (signals / "signals").iterdir():
        path.rename(signals / path.name)
    (signals / "signals").rmdir()
    words = with_table(signals)
    monkeypatch.chdir(signals.parent)
    words[2] = signals.name  # relative, and the points absolute
    store = imported(*words, "--points", signals / "points.csv")
    assert set(store.ids("train") + store.ids("test")) == {"a", "b", "c"}
    said = capsys.readouterr()
    assert "without an annotation" not in said.out + said.err


def test_names_may_have_any_unicode_form(signals):
    (signals / "signals" / "c.npy").rename(signals / "signals" / f"{normalize('NFD', 'é')}.npy")
    store = imported(*with_table(signals, TABLE.replace("c,", normalize("NFC", "é,"))))
    assert store.ids("test") == (normalize("NFC", "é"),)


def test_a_row_with_an_empty_value_is_no_header(tmp_path):
    (tmp_path / "a.csv").write_text(",2,3\n4,5,6\n7,8,9\n")
    with pytest.raises(DataError, match="not numbers"):
        table(tmp_path / "a.csv").read()
    (tmp_path / "b.csv").write_text(",x,y\n4,5,6\n7,8,9\n")
    assert table(tmp_path / "b.csv").columns() == ("", "x", "y")
    assert table(tmp_path / "b.csv").shape() == table(tmp_path / "b.csv").read().shape == (2, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("start_s", "start", "no column start_s in the first line, which has video, class, start"),
        ("c,open", "d,open", "segments.csv:2: recording 'd' has no file; name one of the files"),
        ("1.5,4", "1.5,x", "segments.csv:2: end_s 'x'; must be a number of seconds"),
        ("1.5,4", "1.5,4,dev", "segments.csv:2: 5 values for 4 columns"),
        ("c,open", "c,", "segments.csv:2: a segment without a class; name its class, or leave"),
    ],
)
def test_wrong_tables_are_refused(signals, old, new, message, capsys):
    assert message in refused(capsys, *with_table(signals, TABLE.replace(old, new)))


def test_a_turned_recording_with_a_table_is_named(signals, capsys):
    save(signals / "signals" / "a.npy", RNG.normal(3, 2, (2, 200)))
    message = refused(capsys, *with_table(signals))
    assert "a.npy: shape (2, 200); 2 samples are fewer than a window of 20; transpose it" in message


def test_a_recording_without_samples_is_named(signals, capsys):
    write(signals / "signals" / "d.csv", "x,y\n")
    assert "d.csv: holds no samples" in refused(capsys, *with_table(signals))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("y,x", "b.csv: columns y, x; the other recordings have x, y; give all the same columns"),
        ("Time,x", "b.csv: column 'Time' counts time or samples and is no signal; remove it"),
    ],
)
def test_columns_of_recordings_have_the_same_names(signals, header, message, capsys):
    for path in sorted((signals / "signals").glob("*.npy")):
        own = header if path.stem == "b" else "x,y"
        lines = [",".join(map(str, row)) for row in np.load(path).tolist()]
        path.with_suffix(".csv").write_text("\n".join([own, *lines]))
        path.unlink()
    assert message in refused(capsys, "--layout", "signals", signals, *WINDOWS)
    text = (signals / "signals" / "b.csv").read_text()
    (signals / "signals" / "b.csv").write_text(text.replace(header, "x,y"))
    store = imported("--layout", "signals", signals, *WINDOWS)
    assert store.preparation.channels == ("x", "y")
    named = store.preparation.opened(table(signals / "signals" / "a.csv"))
    assert named.shape() == (19, 25)
    (signals / "signals" / "a.csv").write_text(text.replace(header, "p,q"))
    with pytest.raises(DataError, match="columns p, q; the other recordings have x, y"):
        named.shape()


def test_a_channel_that_counts_time_is_no_signal(signals, capsys):
    samples = np.load(signals / "signals" / "b.npy")
    samples[:, 1] = np.arange(200) / 20 + RNG.uniform(0, 0.01, 200)
    save(signals / "signals" / "b.npy", samples)
    message = refused(capsys, "--layout", "signals", signals, *WINDOWS)
    assert "b.npy: channel 2 (counted from 1) rises at every sample, from 0" in message
    samples[:, 1] = np.arange(200) // 2  # a count of steps
    save(signals / "signals" / "b.npy", samples)
    imported("--layout", "signals", signals, *WINDOWS)


def test_recordings_of_other_widths_turned_or_unused_are_named(signals, capsys):
    right = np.load(signals / "signals" / "b.npy")
    save(signals / "signals" / "b.npy", np.hstack([right, right]))
    message = refused(capsys, "--layout", "signals", signals, *WINDOWS)
    assert "b.npy: 4 channels; most other recordings have 2" in message
    save(signals / "signals" / "b.npy", right.T)
    message = refused(capsys, "--layout", "signals", signals, *WINDOWS)
    assert "shape (2, 200); 2 samples are fewer than a window of 20; transpose it" in message
    save(signals / "signals" / "b.npy", right)
    save(signals / "signals" / "extra.npy", right)
    imported("--layout", "signals", signals, *WINDOWS)
    said = capsys.readouterr()
    assert "recordings without an annotation: 1" in said.out + said.err


def test_signals_need_rate_window_and_stride(signals, capsys):
    words = ["--layout", "signals", signals]
    assert "pass --rate" in refused(capsys, *words, code=2)
    assert "pass --window: a number of samples" in refused(
        capsys, *words, "--rate", 20, "--stride", 10, code=2
    )
    assert "--stride 2.5" in refused(capsys, *words, *WINDOWS, "--stride", 2.5, code=2)


def test_hapt_is_one_command():
    folder = shared("data/hapt")
    words = [
        "--layout", "signals", "--signals", folder / "signals", "--annotations",
        folder / "annotations.json", "--rate", 50, "--window", 50, "--stride", 25,
        "--points", folder / "points_gaussian.csv",
    ]  # fmt: skip
    assert main(["import", "hapt", *map(str, words)]) == 0
    store = find("hapt")
    assert (len(store.ids("train")), len(store.ids("test"))) == (42, 19)
    assert store.info.feature_dim == 87 and "Reyes-Ortiz" in store.info.note
    assert sum(len(store.points(id)) for id in store.ids("train")) == 849
    groups = store.groups()  # the people
    assert groups["exp01_user01"] == groups["exp02_user01"] == "01"
    assert (len(groups), len(set(groups.values()))) == (61, 30)


# actionformer, opentad


def test_the_type_of_the_store_is_chosen_by_the_normalized_features(root, capsys):
    words = frames_release(root, suffix=".npy", fps=10)
    for id in SEGMENTS:
        save(root / "i3d_features" / f"{id}.npy", features(18) + 3000)
    assert "--dtype float32" in refused(capsys, *words, "--dtype", "float16")
    assert main(["import", "tiny", *map(str, words), "--normalize", "train"]) == 0
    store = find("tiny")
    assert store.dtype == "float16" and "z-scores" in store.info.note
    found = np.concatenate([store.video(id).features for id in "ab"])
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-2)


def test_features_that_are_not_finite_are_named_when_they_are_normalized(root, capsys):
    words = frames_release(root, suffix=".npy", fps=10)
    array = features(18)
    array[3, 1] = np.nan
    save(root / "i3d_features" / "b.npy", array)
    message = refused(capsys, *words, "--normalize", "train")
    assert "video b: features[3, 1] is nan" in message and "more" not in message
