"""What a prediction takes: raw features, recordings of sensors, videos of different frame rates."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import torch
from conftest import make_store
from release_of_store import imported, of_the_test_split, write_release
from test_predict import as_results, assert_same, predict, results, run_leaving_model

from ptal_ray.data.__main__ import main as data_main
from ptal_ray.data.rates import Frames
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid
from ptal_ray.errors import DataError
from ptal_ray.predict import main
from ptal_ray.prediction.outputs import _srt
from ptal_ray.prediction.pyfunc import Detector
from ptal_ray.prediction.target import check_output
from ptal_ray.prediction.times import TimeFlags, Times, read_times
from ptal_ray.training.model_file import read_model
from ptal_ray.training.trial import Trial

METHOD = "lacp"  # has a network that can be exported, and its steps cost the least time
RATES = (10.0, 12.0, 12.5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open(make_store(tmp_path_factory.mktemp("data") / "tiny", train=8))


@pytest.fixture(scope="module")
def scaled(small: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on z-scores in "run", raw test features in "new", its "detections.json"."""
    folder = tmp_path_factory.mktemp("scaled")
    raw = np.linspace(1, 300, 16)
    release = write_release(small, folder / "release", lambda x: (x * raw + 7 * raw).astype("f4"))
    words = ("--fps", 10, "--stride", 5, "--normalize", "train")
    return trained(imported(release, folder / "store", *words), release, folder)


@pytest.fixture(scope="module")
def mixed(small: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of videos with different frame rates, and so strides of 0.4 to 0.5 s."""
    folder = tmp_path_factory.mktemp("mixed")
    release = write_release(small, folder / "release", lambda x: x, lambda k: RATES[k % 3])
    store = imported(release, folder / "store", "--fps", "json", "--stride", 5)
    assert store.info.grid is None
    return trained(store, release, folder)


def trained(store: FeatureStore, release: Path, folder: Path) -> Path:
    trial = run_leaving_model(store.path, METHOD, folder / "run")
    of_the_test_split(store, release, folder / "new")
    (folder / "detections.json").write_text(json.dumps(plain(trial)))
    return folder


def plain(trial: Trial) -> dict[str, Any]:
    found = as_results(trial)
    assert any(found.values())
    return found


def detections(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "detections.json").read_text())
    return found


def test_raw_features_give_the_detections_of_normalised_ones(scaled: Path, tmp_path: Path) -> None:
    assert predict(scaled / "run", scaled / "new", tmp_path / "found.json") == 0
    assert_same(results(tmp_path / "found.json"), detections(scaled))
    scale = FeatureStore.open(scaled / "store").preparation.scale
    kept = read_model(scaled / "run" / "model.pt").preparation.scale
    np.testing.assert_array_equal(kept.mean, scale.mean)
    np.testing.assert_array_equal(kept.spread, scale.spread)


def test_mlflow_predicts_from_raw_features_too(scaled: Path) -> None:
    raw = {path.stem: np.load(path) for path in (scaled / "new").glob("*.npy")}
    expected = detections(scaled)
    for id, found in Detector(scaled / "run" / "model.pt").predict(raw).items():
        scores = sorted((item["score"] for item in expected[id]), reverse=True)
        np.testing.assert_allclose([item["score"] for item in found], scores, atol=1e-6)


def test_an_exported_program_says_what_is_done_to_features(scaled: Path, tmp_path: Path) -> None:
    assert main([str(scaled / "run"), "--export", str(tmp_path / "model.pt2")]) == 0
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        name = next(n for n in archive.namelist() if n.endswith("ptal_ray.json"))
        about = json.loads(archive.read(name))
    scale = FeatureStore.open(scaled / "store").preparation.scale
    assert scale.mean is not None and about["preparation"]["mean"] == scale.mean.tolist()


@pytest.fixture(scope="module")
def sensors(small: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of recordings at 20 samples a second, cut into windows of 20, 10 apart."""
    folder = tmp_path_factory.mktemp("sensors")
    rng = np.random.default_rng(0)

    def recording(x: Any) -> Any:
        rows = np.repeat(x[:, :3], 10, axis=0)
        return (rows + 0.1 * rng.standard_normal(rows.shape)).astype(np.float32)

    release = write_release(small, folder / "release", recording)
    out = folder / "store"
    words = ("import", "mine", "--layout", "signals", release, "--signals", release / "features",
             "--rate", 20, "--window", 20, "--stride", 10, "--out", out)  # fmt: skip
    (release / "annotations.json").write_text((release / "gt.json").read_text())
    assert data_main([str(w) for w in words]) == 0
    return trained(FeatureStore.open(out), release, folder)


def test_recordings_give_the_detections_of_their_window_features(
    sensors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = sensors / "run", tmp_path / "found.json"
    assert predict(model, sensors / "new", out) == 0
    assert_same(results(out), detections(sensors))
    assert predict(model, sensors / "new", out, "--rate", "20") == 0
    assert_same(results(out), detections(sensors))
    assert predict(model, sensors / "new", out, "--rate", "100") == 3
    assert "snippets of 0.5 s, and these features have 0.1 s" in capsys.readouterr().err
    assert predict(model, sensors / "new", out, "--rate", "20", "--stride", "5") == 2
    assert "--stride 5: the model takes recordings with --stride 10" in capsys.readouterr().err


@pytest.mark.parametrize(("start", "score"), [(0.0, 0.5), (0.0, -0.05), (-0.4, 12.3)])
def test_subtitles_of_any_score_are_replaced(tmp_path: Path, start: float, score: float) -> None:
    (tmp_path / "v.srt").write_bytes(_srt([(start, 1.0, "wave", score)]).encode())
    check_output(tmp_path, "srt", ["v"])


def test_names_in_another_unicode_form_have_their_times() -> None:
    name = normalize("NFC", "café")
    frames = {name: Frames(fps=2, stride=1)}
    times = Times(trained=Grid(stride_s=1.0), durations={name: 9.0}, frames=frames)
    assert times.of(normalize("NFD", name), 9)[1] == 9.0


def test_a_video_whose_duration_is_not_stated_is_as_long_as_its_snippets() -> None:
    times = Times(trained=Grid(stride_s=2.0), shared=True, durations={"a": 9.0}, some=True)
    assert times.of("b", 4)[1] == 8.0
    with pytest.raises(DataError, match="no row"):
        replace(times, some=False).of("b", 4)


def test_what_a_least_score_leaves_out_is_said(
    sensors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(sensors / "run", sensors / "new", tmp_path / "a.json", "--min-score", "9") == 0
    said = re.search(
        r"^0 detections, of (\d+) in \d+ videos \(highest score", capsys.readouterr().out
    )
    assert said and int(said[1]) == sum(map(len, detections(sensors).values()))


def test_recordings_as_csv_and_wrong_ones(
    sensors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for path in (sensors / "new").glob("*.npy"):
        lines = [", ".join(map(repr, row)) for row in np.load(path).astype(float).tolist()]
        (new / f"{path.stem}.csv").write_text("\n".join(["x, y, z", *lines]))
    np.save(new / "wide.npy", np.ones((100, 4)))
    np.save(new / "short.npy", np.ones((19, 3)))
    np.save(new / "gap.npy", np.full((100, 3), np.nan))
    out = tmp_path / "found.json"
    assert predict(sensors / "run", new, out, "--json") == 0
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert set(refused) == {"gap", "short", "wide"}
    assert "4 channels a sample; the model was trained on (samples, 3)" in refused["wide"]
    assert "19 samples are fewer than a window of 20" in refused["short"]
    assert refused["gap"].startswith("sample 1, channel 1 (counted from 1) is nan")
    assert_same(results(out), detections(sensors))
    np.save(new / "video8.npy", np.ones((100, 3)))
    assert predict(sensors / "run", new, out) == 3
    assert "several files of video8" in capsys.readouterr().err


def test_a_model_of_features_passes_over_tables(scaled: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for path in (scaled / "new").glob("*.npy"):
        (new / path.name).write_bytes(path.read_bytes())
    (new / "notes.csv").write_text("a,b\n1,2\n")
    assert predict(scaled / "run", new, tmp_path / "found.json") == 0
    assert set(results(tmp_path / "found.json")) == set(detections(scaled))


def test_files_as_released_are_turned_and_thinned_as_in_the_import(
    scaled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(scaled / "run" / "model.pt", weights_only=True)
    content["preparation"] |= {"transposed": True, "every": 3}
    torch.save(content, tmp_path / "model.pt")
    (tmp_path / "new").mkdir()
    for path in (scaled / "new").glob("*.npy"):
        np.save(tmp_path / "new" / path.name, np.repeat(np.load(path), 3, axis=0).T)
    out = tmp_path / "found.json"
    assert predict(tmp_path / "model.pt", tmp_path / "new", out) == 0
    assert_same(results(out), detections(scaled))
    assert predict(tmp_path / "model.pt", scaled / "new", tmp_path / "other.json") == 3
    assert "the model was trained on files of shape (16, T)" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_and_an_ending_in_capitals_are_named(
    scaled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.NPY"
    path.write_bytes(b"")
    assert predict(scaled / "run", path, tmp_path / "found.json") == 3
    assert f"{path}: not a folder" in capsys.readouterr().err
    assert predict(scaled / "run", tmp_path, tmp_path / "found.json") == 3
    assert f"{path}: rename it to a.npy" in capsys.readouterr().err


def test_a_model_file_of_the_format_before(mixed: Path, scaled: Path, tmp_path: Path) -> None:
    """It has no range of strides and no scale: features are taken as they are."""
    for folder, flags in ((mixed, ("--annotations", mixed / "release" / "gt.json")), (scaled, ())):
        content = torch.load(folder / "run" / "model.pt", weights_only=True)
        old = {k: v for k, v in content.items() if k not in ("strides", "preparation")}
        torch.save(old | {"format": 1}, tmp_path / "model.pt")
        out = tmp_path / f"{folder.name}.json"
        assert read_model(tmp_path / "model.pt").preparation.plain() == {}
        assert predict(tmp_path / "model.pt", folder / "new", out, *map(str, flags)) == 0


def test_a_damaged_scale_of_a_store_is_named(small: FeatureStore, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small.path, tmp_path / "store"))
    described = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(described | {"preparation": {"mean": ["x"]}}))
    with pytest.raises(DataError, match="store.json: damaged; import it again"):
        _ = FeatureStore.open(store).preparation


def rate_table(mixed: Path, path: Path, *columns: str) -> Path:
    """A CSV of the rates of all videos."""
    database = json.loads((mixed / "release" / "gt.json").read_text())["database"]
    rows = [",".join(["video", "fps", *(name for name, _ in map(_pair, columns))])]
    rows += [
        ",".join([id, str(entry["fps"]), *(value for _, value in map(_pair, columns))])
        for id, entry in database.items()
    ]
    path.write_text("\n".join(rows))
    return path


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def test_every_video_has_its_own_rate(mixed: Path, tmp_path: Path) -> None:
    gt, out = mixed / "release" / "gt.json", tmp_path / "found.json"
    table = rate_table(mixed, tmp_path / "rates.csv")
    full = rate_table(mixed, tmp_path / "full.csv", "stride=5", "window=5")
    for flags in (
        ("--annotations", gt, "--fps", "json", "--stride", 5),
        ("--annotations", gt, "--fps", table, "--stride", 5),
        ("--annotations", gt, "--fps", full),
    ):
        assert predict(mixed / "run", mixed / "new", out, *map(str, flags)) == 0
        assert_same(results(out), detections(mixed))
    assert predict(mixed / "run", mixed / "new", out, "--fps", str(full)) == 0
    assert_same(results(out), detections(mixed))  # durations from what the snippets cover


def test_without_rates_the_snippets_are_spread_over_the_duration(
    mixed: Path, tmp_path: Path
) -> None:
    model, store = read_model(mixed / "run" / "model.pt"), FeatureStore.open(mixed / "store")
    flags = TimeFlags(annotations=mixed / "release" / "gt.json")
    times = read_times(flags, model, mixed / "new", store.ids("test"))
    for id in store.ids("test"):
        grid, duration_s = times.of(id, store.length(id))
        assert duration_s == pytest.approx(store.duration_s(id))
        assert grid.stride_s == pytest.approx(store.grid(id).stride_s) and grid.offset_s == 0
    words = ("--annotations", str(mixed / "release" / "gt.json"))
    assert predict(mixed / "run", mixed / "new", tmp_path / "found.json", *words) == 0


def test_rates_that_are_missing_or_wrong(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "found.json", tmp_path / "rates.csv"

    def said(code: int, *flags: str) -> str:
        assert predict(mixed / "run", mixed / "new", out, *flags) == code
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "different strides (0.4 to 0.5 s)" in said(2)
    assert "give the JSON with the rates by --annotations" in said(2, "--fps", "json")
    assert "--fps: also pass --stride" in said(2, "--fps", "10")
    table.write_text("video,rate\nvideo8,10\n")
    assert "no column fps" in said(3, "--fps", str(table))
    table.write_text("video,fps\nvideo8,ten\n")
    assert "rates.csv:2: video video8: fps 'ten'; must be a positive number" in said(
        3, "--fps", str(table), "--stride", "5"
    )
    table.write_text("video,fps\nvideo8,12.5\nvideo9,10\nvideo10,12\n")
    assert "no stride for 1 of 1 videos: video10" in said(3, "--fps", str(table))
    table.write_text("video,fps\nvideo8,12.5\n")
    assert predict(mixed / "run", mixed / "new", out, "--fps", str(table), "--stride", "5",
                   "--json") == 0  # fmt: skip
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert set(refused) == {"video9", "video10"}
    assert f"{table}: no frame rate for 1 of 1 videos: video9" in refused["video9"]
    table.write_text("video,fps\nvideo8,12.5\nvideo9,5\nvideo10,12\n")
    assert predict(mixed / "run", mixed / "new", out, "--fps", str(table), "--stride", "5",
                   "--json") == 0  # fmt: skip
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert set(refused) == {"video9"}
    assert "snippets of 0.4 to 0.5 s, and these features have 1 s" in refused["video9"]
    with pytest.raises(SystemExit, match="2"):
        predict(mixed / "run", mixed / "new", out, "--fps", "-3")
    assert "allowed are json, a positive number or a CSV file" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_find_the_same(scaled: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for path in (scaled / "new").glob("*.npy"):
        for k in range(40):  # more than one batch
            (new / f"{path.stem}_{k}.npy").write_bytes(path.read_bytes())
    np.save(new / "bad.npy", np.full((40, 16), np.nan))
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    assert predict(scaled / "run", new, one) == 0
    flags = ("--workers", "2", "--address", "local")
    assert predict(scaled / "run", new, several, *flags) == 0
    assert results(several) == results(one) and len(results(one)) == 120
