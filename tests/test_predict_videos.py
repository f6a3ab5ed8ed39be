"""Videos in, detections out: the extraction of the training is repeated on new videos."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from release_of_store import imported
from synthetic_video import write_video
from test_extract import network
from test_predict import assert_same, predict, results, run_leaving_model
from test_predict_inputs import METHOD

from ptal_ray.backends import predict as backend
from ptal_ray.data.features.preparation import UNKNOWN
from ptal_ray.extract import main as extract_main
from ptal_ray.predict import main
from ptal_ray.training.model_file import read_model, write_model
from ptal_ray.video.extractor import Extractor

pytest.importorskip("av", reason="PyAV (extra `video`) is not installed")
RATES = (10, 12)
SETTINGS = ("--size", "16", "--device", "cpu", "--stride", "2", "--address", "local")


def extracted(videos: Path, encoder: Path, out: Path, *flags: str) -> Path:
    words = [str(videos), "--encoder", str(encoder), "--out", str(out), *SETTINGS, *flags]
    assert extract_main(words) == 0
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in "run" of features by "net.pt2" of videos of two rates, and three in "new"."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "videos").mkdir()
    (folder / "new").mkdir()
    database: dict[str, Any] = {}
    points = ["video_id,class,time_s"]
    for k in range(8):
        fps = RATES[k % 2]
        write_video(folder / "videos" / f"clip{k}.mp4", frames=100, fps=fps)
        segments = [[(at + 5) / fps, (at + 10) / fps] for at in range(0, 100, 10)]
        database[f"clip{k}"] = {
            "subset": "test" if k > 5 else "train",
            "duration": 100 / fps,
            "annotations": [{"label": "bright", "segment": segment} for segment in segments],
        }
        points += [f"clip{k},bright,{(s + e) / 2}" for s, e in segments] if k < 6 else []
    for k in range(3):
        write_video(folder / "new" / f"new{k}.mp4", frames=60 + 10 * k, fps=RATES[k % 2])
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    (folder / "points.csv").write_text("\n".join(points))
    extracted(folder / "videos", network(folder / "net.pt2"), folder / "features")
    store = imported(folder, folder / "store", "--fps", folder / "features" / "videos.csv",
                     "--normalize", "train")  # fmt: skip
    run_leaving_model(store.path, METHOD, folder / "run")
    return folder


def from_videos(model: Path, videos: Path, out: Path, *flags: str) -> int:
    words = [str(model), "--videos", str(videos), "--out", str(out), "--threads", "1"]
    return main([*words, *flags])


def test_videos_are_extracted_as_those_of_the_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = extracted(place / "new", place / "net.pt2", tmp_path / "features")
    assert predict(place / "run", features, tmp_path / "two.json") == 0
    new = shutil.copytree(place / "new", tmp_path / "new")
    (new / "broken.mp4").write_text("no video")
    capsys.readouterr()
    net = str(place / "net.pt2")
    assert from_videos(place / "run", new, tmp_path / "one.json", "--encoder", net, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["refused"]) == {"broken"} and "unreadable video" in said["refused"]["broken"]
    assert_same(results(tmp_path / "one.json"), results(tmp_path / "two.json"))
    assert any(results(tmp_path / "one.json").values())
    assert not list(tmp_path.glob(".*"))


def test_features_are_dated_by_the_table_beside_them(place: Path, tmp_path: Path) -> None:
    """Without a flag: every video has the frame rate and duration that its extraction found."""
    features = extracted(place / "new", place / "net.pt2", tmp_path / "features")
    assert predict(place / "run", features, tmp_path / "own.json") == 0
    table = str(features / "videos.csv")
    (features / "manifest").rename(tmp_path / "manifest")
    assert predict(place / "run", features, tmp_path / "x.json") == 2
    flags = ("--fps", table, "--durations", table)
    assert predict(place / "run", features, tmp_path / "given.json", *flags) == 0
    assert results(tmp_path / "own.json") == results(tmp_path / "given.json")


def test_features_of_another_extraction_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = network(tmp_path / "net.pt2", large=2.0)
    features = extracted(place / "new", other, tmp_path / "other")
    assert predict(place / "run", features, tmp_path / "x.json") == 3
    assert "was extracted with sha256" in capsys.readouterr().err
    features = extracted(place / "new", place / "net.pt2", tmp_path / "far", "--window", "3")
    assert predict(place / "run", features, tmp_path / "x.json") == 3
    assert "window 3, not 2" in capsys.readouterr().err
    assert predict(place / "run", features, tmp_path / "x.json", "--allow-stride") == 0


def test_an_interrupted_prediction_of_videos_continues(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, seen = Extractor.__call__, []

    def interrupted(self: Extractor, video: str, file: Path) -> Any:
        seen.append(video)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return call(self, video, file)

    monkeypatch.setattr(Extractor, "__call__", interrupted)
    words = ("--encoder", str(place / "net.pt2"))
    assert from_videos(place / "run", place / "new", tmp_path / "found.json", *words) == 130
    assert from_videos(place / "run", place / "new", tmp_path / "found.json", *words) == 0
    assert seen == ["new0", "new1", "new1", "new2"]
    assert set(results(tmp_path / "found.json")) == {"new0", "new1", "new2"}


def test_what_an_earlier_command_left_is_not_predicted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of other videos, or of other settings, beside the same output."""
    words, out = ("--encoder", str(place / "net.pt2")), tmp_path / "found.json"
    monkeypatch.setattr(backend, "predict", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        from_videos(place / "run", place / "new", out, *words)
    monkeypatch.undo()
    (tmp_path / ".found.json.features" / "manifest" / "settings.json").write_text('{"fps": 9}')
    assert from_videos(place / "run", place / "new" / "new1.mp4", out, *words) == 0
    assert set(results(out)) == {"new1"}


def test_a_model_whose_features_nothing_here_made(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model(place / "run" / "model.pt")
    write_model(tmp_path / "model.pt", replace(model, preparation=UNKNOWN))
    assert from_videos(tmp_path / "model.pt", place / "new", tmp_path / "x.json") == 3
    err = capsys.readouterr().err
    assert "was not trained on features from python -m ptal_ray.extract" in err
    assert "it takes 4 numbers, as the features of mine" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "were made by net.pt2; give its files: --encoder FILE (sha256 "),
        (("--weights", "NET"), "give its files: --encoder FILE"),
        (("--encoder", "other.pt2"), "the given --encoder has other content"),
        (("--encoder", "missing.pt2"), "missing.pt2: cannot be read"),
        (("--encoder", "NET", "--fps", "3"), "--videos cannot be combined with --fps"),
        (("--features", "x"), "one of --features DIR and --videos DIR"),
        (("--encoder", "NET", "--workers", "2", "--device", "cuda:1"), "--device cuda:1"),
    ],
)
def test_wrong_flags_of_videos(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    network(tmp_path / "other.pt2", large=3.0)
    words = [str(place / "net.pt2") if word == "NET" else word for word in flags]
    assert from_videos(place / "run", place / "new", tmp_path / "x.json", *words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_flags_of_videos_are_not_for_features(place: Path, tmp_path: Path) -> None:
    words = ("--encoder", str(place / "net.pt2"))
    assert predict(place / "run", place / "features", tmp_path / "x.json", *words) == 2


@pytest.mark.slow
def test_several_processes_extract_and_score(place: Path, tmp_path: Path) -> None:
    words = ("--encoder", str(place / "net.pt2"), "--address", "local")
    assert from_videos(place / "run", place / "new", tmp_path / "one.json", *words) == 0
    words = (*words, "--workers", "2")
    assert from_videos(place / "run", place / "new", tmp_path / "two.json", *words) == 0
    assert results(tmp_path / "one.json") == results(tmp_path / "two.json")
