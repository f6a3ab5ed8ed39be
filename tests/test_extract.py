"""The command that makes features of videos: output, resuming, broken videos, several processes."""

from __future__ import annotations

import csv
import errno
import io
import json
import sys
from functools import cache

import numpy as np
import pytest
import torch
from synthetic_video import write_audio, write_video

from ptal_ray.data.__main__ import main as data_main
from ptal_ray.extract import main
from ptal_ray.video import manifest
from ptal_ray.video.extractor import Extractor
from ptal_ray.video.manifest import Manifest

pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")


class Colours(torch.nn.Module):
    """Mean of each colour of an image, and a number that float16 cannot hold."""

    def __init__(self, large=1.0):
        super().__init__()
        self.large = large

    def forward(self, x):
        constant = 0 * x.mean((1, 2, 3)) + self.large
        return torch.cat([x.mean((2, 3)), constant[:, None]], dim=1)


@cache
def program(large):
    """The bytes of a small exported network of images."""
    example, file = torch.zeros(2, 3, 16, 16), io.BytesIO()
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(Colours(large).eval(), (example,), dynamic_shapes=dynamic)
    torch.export.save(exported, file)
    return file.getvalue()


def network(path, large=1.0):
    """The file of such a network."""
    path.write_bytes(program(large))
    return path


@pytest.fixture
def videos(tmp_path):
    """Two videos of different rates, in folders."""
    (tmp_path / "videos/deep").mkdir(parents=True)
    write_video(tmp_path / "videos/slow.mp4", frames=30, fps=10)
    write_video(tmp_path / "videos/deep/fast.mkv", frames=50, fps=25)
    return tmp_path / "videos"


@pytest.fixture
def flags(tmp_path, videos):
    """Flags of an extraction into tmp_path/out."""
    encoder = network(tmp_path / "net.pt2")
    common = ["--encoder", encoder, "--size", 16, "--device", "cpu", "--address", "local"]
    return [str(f) for f in (videos, "--out", tmp_path / "out", *common)]


def table(out):
    with (out / "videos.csv").open() as file:
        return list(csv.DictReader(file))


def extracted(monkeypatch):
    """The ids that are extracted from now on, in a list that grows."""
    ids, call = [], Extractor.__call__
    monkeypatch.setattr(Extractor, "__call__", lambda self, v, f: ids.append(v) or call(self, v, f))
    return ids


def test_features_and_a_table_of_the_videos(tmp_path, flags, capsys):
    assert main([*flags, "--stride", "0.5s", "--window", "5"]) == 0
    fast, slow = table(tmp_path / "out")
    assert (fast["video"], fast["frames"], fast["variable"]) == ("fast", "50", "0")
    for row, fps, duration in ((fast, 25, 2.0), (slow, 10, 3.0)):
        assert float(row["fps"]) == float(row["video_fps"]) == pytest.approx(fps)
        assert float(row["stride"]) == pytest.approx(fps / 2) and row["window"] == "5"
        assert float(row["duration_s"]) == pytest.approx(duration, abs=0.01)
        features = np.load(tmp_path / f"out/{row['video']}.npy")
        assert features.shape == (int(row["snippets"]), int(row["dim"]))
        assert features.dtype == np.float16 and row["dim"] == "4"
    grey = np.load(tmp_path / "out/slow.npy")[:, 1].astype(float) * 255
    middle = 20 + 20 * 2.0  # frames 0 to 4, of which the crop keeps all but the red square
    assert grey[0] == pytest.approx(middle * 10 / 12, abs=6) and grey[1] > grey[0] + 50
    said = capsys.readouterr().out
    assert "fast: 50 frames" in said and "frames/s" in said and "2 videos extracted" in said


def test_one_rate_for_all_videos(tmp_path, flags):
    assert main([*flags, "--fps", "5", "--stride", "1", "--dtype", "float32"]) == 0
    rows = table(tmp_path / "out")
    assert {(row["fps"], row["stride"], row["window"]) for row in rows} == {("5.0", "1.0", "1")}
    assert [row["snippets"] for row in rows] == ["10", "15"]
    assert np.load(tmp_path / "out/slow.npy").dtype == np.float32


def test_finished_videos_are_left_out(tmp_path, flags, videos, monkeypatch, capsys):
    ids = extracted(monkeypatch)
    assert main(flags) == 0 and ids == ["fast", "slow"]
    write_video(videos / "new.mp4", frames=10)
    write_video(videos / "slow.mp4", frames=40)  # recorded again
    (tmp_path / "out/fast.npy").unlink()
    assert main(flags) == 0 and ids[2:] == ["fast", "new", "slow"]
    assert main(flags) == 0 and len(ids) == 5
    assert "3 of 3 videos are finished" in capsys.readouterr().out
    assert [row["video"] for row in table(tmp_path / "out")] == ["fast", "new", "slow"]
    assert not [p for p in (tmp_path / "out").rglob(".*") if p.name != ".lock"]


@pytest.mark.parametrize(
    "changed, said",
    [
        (["--stride", "4"], "stride 16, now 4"),
        (["--fps", "5"], "fps None, now 5.0"),
        (["--dtype", "float32"], "dtype float16, now float32"),
        (["--mean", "0.5,0.5,0.5"], "mean"),
    ],
)
def test_other_settings_are_refused_unless_all_is_replaced(tmp_path, flags, changed, said, capsys):
    assert main(flags) == 0
    before = (tmp_path / "out/slow.npy").read_bytes()
    assert main([*flags, *changed]) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "out/slow.npy").read_bytes() == before
    assert main([*flags, *changed, "--replace"]) == 0
    assert (tmp_path / "out/slow.npy").read_bytes() != before
    assert main([*flags, *changed]) == 0


def test_replacing_begins_without_the_old_features(tmp_path, flags):
    assert main(flags) == 0
    with Manifest(tmp_path / "out").begun({"encoder": "other"}, replace=True):
        pass  # killed before the first video
    assert not list((tmp_path / "out").glob("*.npy"))
    assert not (tmp_path / "out/videos.csv").exists()


def test_another_network_in_the_same_file_is_other_settings(tmp_path, flags, capsys):
    assert main(flags) == 0
    network(tmp_path / "net.pt2", large=2.0)
    assert main(flags) == 2 and "sha256" in capsys.readouterr().err


def test_features_of_unknown_settings_are_kept(tmp_path, flags, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/slow.npy").write_bytes(b"mine")
    assert main(flags) == 2 and "unknown settings" in capsys.readouterr().err
    assert (tmp_path / "out/slow.npy").read_bytes() == b"mine"


def test_broken_videos_are_listed_and_the_others_extracted(tmp_path, flags, videos, capsys):
    (videos / "broken.mp4").write_text("no video")
    write_audio(videos / "sound.mp4")
    assert main(flags) == 0
    assert [row["video"] for row in table(tmp_path / "out")] == ["fast", "slow"]
    err = capsys.readouterr().err
    assert "broken.mp4: unreadable video" in err and "sound.mp4: no video stream" in err
    write_video(videos / "broken.mp4", frames=10)
    assert main(flags) == 0 and len(table(tmp_path / "out")) == 3


def test_only_broken_videos_are_an_error(flags, videos, capsys):
    for path in (videos / "slow.mp4", videos / "deep/fast.mkv"):
        path.write_text("no video")
    assert main(flags) == 3
    assert "none of 2 videos could be read" in capsys.readouterr().err


def test_numbers_that_the_type_cannot_hold_are_refused(tmp_path, flags, capsys):
    network(tmp_path / "net.pt2", large=1e5)
    assert main(flags) == 3 and "--dtype float32" in capsys.readouterr().err
    assert main([*flags, "--dtype", "float32", "--replace"]) == 0


def test_a_full_storage_ends_it_and_the_command_continues(tmp_path, flags, monkeypatch, capsys):
    write = manifest.write_whole

    def full(path, content):
        if path.name == "slow.npy":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(manifest, "write_whole", full)
    assert main(flags) == 1 and "free space and repeat the command" in capsys.readouterr().err
    assert [row["video"] for row in table(tmp_path / "out")] == ["fast"]
    monkeypatch.undo()
    ids = extracted(monkeypatch)
    assert main(flags) == 0 and ids == ["slow"]


def test_an_interruption_keeps_what_is_finished(tmp_path, flags, monkeypatch, capsys):
    call = Extractor.__call__

    def interrupted(self, video, file):
        if video == "slow":
            raise KeyboardInterrupt
        return call(self, video, file)

    monkeypatch.setattr(Extractor, "__call__", interrupted)
    assert main(flags) == 130 and "repeat the command" in capsys.readouterr().err
    assert [row["video"] for row in table(tmp_path / "out")] == ["fast"]


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--encoder", "x3d"], "allowed are efficientnet-lite0, i3d, transnetv2, or a file"),
        (["--encoder", "missing.pt"], "missing.pt: cannot be read"),
        (["--encoder", "transnetv2"], "--size: applies only to --encoder FILE"),
        (["--stride", "1.5"], "--stride 1.5: must be a whole number of frames"),
        (["--window", "0s"], "--window 0s"),
        (["--size", "9", "--clip", "3"], "check --size and --clip"),
    ],
)
def test_wrong_flags(flags, wrong, said, capsys, tmp_path):
    assert main([*flags, *wrong]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    ["--fps 0", "--size 2x3x4", "--mean 1,2", "--std 1,0,1", "--clip 0", "--workers 0", "--size x"],
)
def test_values_of_the_wrong_kind_are_named(flags, wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*flags, *wrong.split()])
    assert f"argument {wrong.split()[0]}" in capsys.readouterr().err


def test_without_pyav(flags, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(flags) == 2 and "pip install" in capsys.readouterr().err


def test_what_is_written_can_be_imported(tmp_path, flags, capsys):
    """The whole way of the tutorial: extraction, annotations and points in seconds, import."""
    assert main([*flags, "--fps", "10", "--stride", "5"]) == 0
    database = {
        id: {
            "subset": subset,
            "duration": duration,
            "annotations": [{"label": "wave", "segment": [0.5, 1.5]}],
        }
        for id, subset, duration in (("slow", "train", 3.0), ("fast", "test", 2.0))
    }
    (tmp_path / "gt.json").write_text(json.dumps({"database": database}))
    (tmp_path / "points.csv").write_text("class,video_id,time_s\nwave,slow,1.0\n")
    command = ["import", "mine", "--features", tmp_path / "out", "--out", tmp_path / "store"]
    command += ["--annotations", tmp_path / "gt.json", "--points", tmp_path / "points.csv"]
    assert data_main([str(c) for c in [*command, "--fps", 10, "--stride", 5]]) == 0
    assert "a snippet every 0.5 s from 0 s" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_write_the_same(tmp_path, flags, videos, capsys):
    (videos / "broken.mp4").write_text("no video")
    assert main(flags) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.*")}
    assert main([*flags, "--replace", "--workers", "2"]) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.*")} == before
    captured = capsys.readouterr()
    assert "broken.mp4: unreadable video" in captured.err
    assert "2 videos extracted, 1 left out" in captured.out


def test_every_worker_has_its_cpus_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptal_ray.backends.ray import spread

    monkeypatch.setattr(spread, "nodes", lambda: [{"CPU": 3.0}, {"CPU": 3.0}, {"GPU": 1.0}])
    assert [spread._shares(workers, "cpu")[0] for workers in (1, 2, 3, 6)] == [3, 3, 1, 1]
