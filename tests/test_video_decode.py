"""Reading videos: rates, time stamps, turned pictures, and files that are broken."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from synthetic_video import picture, shade, write_audio, write_sound, write_video

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.video.decode import Size, images, steps
from ptal_ray.video.files import find_videos
from ptal_ray.video.probe import probe

av = pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
SIZE = Size(height=24, width=32)


def shades(path, fps=None):
    """The nearest `shade` number of every image of a video."""
    video = probe(path)
    levels = [float(i[:, 16:].mean()) for i in images(video, fps or video.fps, SIZE, threads=1)]
    return [round((level - shade(0)) / 20) for level in levels]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_every_frame_once_at_the_rate_of_the_video(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", frames=20, fps=25)
    video = probe(path)
    assert (video.frames, video.variable) == (20, False)
    assert video.fps == pytest.approx(25) and video.duration_s == pytest.approx(0.8, abs=0.002)
    assert shades(path) == [k % 10 for k in range(20)]


def test_another_rate_repeats_or_leaves_out_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=10, fps=10)
    assert shades(path, fps=20) == [k // 2 for k in range(20)]
    assert shades(path, fps=5) == [1, 3, 5, 7, 9]
    assert shades(path, fps=0.1) == [9]  # at least one image


def test_time_stamps_of_a_variable_rate_decide(tmp_path):
    times = [0, 100, 200, 300, 400, 1400, 1500, 1600, 1700, 1800]  # frame 4 stays for a second
    path = write_video(tmp_path / "a.mkv", frames=10, times=times)
    video = probe(path)
    assert video.variable and video.fps == pytest.approx(9 / 1.8)
    assert shades(path, fps=10)[:18] == [0, 1, 2, 3, *[4] * 10, 5, 6, 7, 8]
    assert len(shades(path)) == steps(video, video.fps) == round(video.duration_s * video.fps)


def test_time_counts_from_the_start_of_the_sound(tmp_path):
    late = [500 + 100 * k for k in range(10)]
    path = write_video(tmp_path / "a.mkv", frames=10, times=late, audio_s=1.5)
    assert probe(path).duration_s == pytest.approx(1.5, abs=0.1)
    assert shades(path, fps=10)[:7] == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_turned_video_is_upright(tmp_path, turned):
    path = write_video(tmp_path / "a.mp4", frames=2, turned=turned, height=48, width=64)
    upright = np.rot90(picture(0), turned // 90)  # counter-clockwise, as the file says
    size = Size(height=upright.shape[0], width=upright.shape[1])
    image = next(images(probe(path), 10, size, threads=1))
    assert np.abs(image.astype(int) - upright).mean() < 8
    assert np.abs(image.astype(int) - np.rot90(image, 2)).mean() > 20


def test_the_middle_is_cut_out_and_a_stretched_image_keeps_all(tmp_path):
    video = probe(write_video(tmp_path / "a.mp4", frames=2, height=48, width=96))
    middle = next(images(video, 10, Size(height=24, width=24), threads=1))
    whole = next(images(video, 10, Size(height=24, width=24, crop=False), threads=1))
    assert (middle[..., 0] > middle[..., 1] + 90).mean() == pytest.approx(0.0, abs=0.1)
    assert (whole[..., 0] > whole[..., 1] + 90).mean() == pytest.approx(0.25, abs=0.05)


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    cut = write_video(tmp_path / "cut.mkv", frames=200)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    none = write_video(tmp_path / "none.mkv", frames=0, audio_s=1.0)
    for path, reason in (
        (cut, "cut off"),
        (tmp_path / "text.mp4", "unreadable video"),
        (tmp_path / "empty.mp4", "unreadable video"),
        (none, "without frames"),
        (write_audio(tmp_path / "sound.mp4"), "no video stream in this file, only audio"),
    ):
        with pytest.raises(DataError, match=reason) as error:
            probe(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_cover_picture_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(cover.encode())
        write_sound(container, sound, 1.0)
    with pytest.raises(DataError, match="no video stream"):
        probe(tmp_path / "a.m4a")


def test_damage_inside_is_found_when_decoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=100)
    content = bytearray(path.read_bytes())
    end = content.find(b"moov")  # the index, behind all frames
    content[end // 2 : end - 4] = bytes(end - 4 - end // 2)
    path.write_bytes(content)
    video = probe(path)
    assert video.frames == 100
    with pytest.raises(DataError, match=str(path)):
        list(images(video, video.fps, SIZE, threads=1))


def test_videos_are_found_at_any_depth(tmp_path):
    for name in ("a.mp4", "b/c.MKV", "b/d/e.webm", ".x/f.mp4", "b/._g.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(find_videos([tmp_path])) == ["a", "c", "e"]
    assert list(find_videos([tmp_path / "notes.txt", tmp_path / "b"])) == ["c", "e", "notes"]


def test_two_files_of_one_id_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.mp4", "b/a.mkv"):
        (tmp_path / name).touch()
    assert list(find_videos([tmp_path / "a.mp4", tmp_path / "a.mp4"])) == ["a"]
    with pytest.raises(DataError, match="its id 'a' is also the id of"):
        find_videos([tmp_path])
    with pytest.raises(DataError, match="no such file or folder"):
        find_videos([tmp_path / "missing"])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="no video in this folder"):
        find_videos([tmp_path / "c"])


def test_without_pyav_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install .*ptal-ray\[video\]"):
        probe(tmp_path / "a.mp4")
