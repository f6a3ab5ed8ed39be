"""Detections as CSV, subtitles and an HTML page, and networks as exported programs."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_store
from small_study import METHOD
from test_predict import export_features, predict, run_leaving_model
from test_trial import SMALL, config

from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.methods.method import load, names
from ptal_ray.predict import main
from ptal_ray.prediction.outputs import output_format, write_output
from ptal_ray.prediction.run import Found
from ptal_ray.prediction.target import check_export
from ptal_ray.training.model_file import model_file, write_model
from ptal_ray.training.task import Task
from ptal_ray.training.trial import Trial

CLASSES = ("Long,\njump", "A <b> & --> C")
FOUND = Found(
    detections={
        "first": Segments(
            start_s=np.array([3661.5, 0.25]), end_s=np.array([3662.0, 1.0]),
            label=np.array([1, 0]), score=np.array([0.9, -0.25]),
        ),
        "second": Segments.empty(),
    },
    durations={"first": 4000.0, "second": 10.0},
    broken={},
)  # fmt: skip


def test_csv_has_a_row_a_detection(tmp_path: Path) -> None:
    write_output(tmp_path / "found.csv", "csv", FOUND, CLASSES)
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values()) for row in rows] == [
        ["first", "3661.5", "3662.0", CLASSES[1], "0.9"],
        ["first", "0.25", "1.0", CLASSES[0], "-0.25"],
    ]
    assert list(rows[0]) == ["video", "start", "end", "label", "score"]


def test_subtitles_are_a_file_a_video(tmp_path: Path) -> None:
    for kind in ("srt", "vtt"):
        write_output(tmp_path / kind, kind, FOUND, CLASSES)
        assert sorted(p.name for p in (tmp_path / kind).iterdir()) == [
            f"first.{kind}", f"second.{kind}",
        ]  # fmt: skip
    assert (tmp_path / "srt" / "first.srt").read_text() == (
        "1\n00:00:00,250 --> 00:00:01,000\nLong, jump -0.250\n\n"
        "2\n01:01:01,500 --> 01:01:02,000\nA <b> & --> C 0.900\n\n"
    )
    assert (tmp_path / "vtt" / "first.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.250 --> 00:00:01.000\nLong, jump -0.250\n\n"
        "01:01:01.500 --> 01:01:02.000\nA &lt;b&gt; &amp; --&gt; C 0.900\n\n"
    )
    assert (tmp_path / "vtt" / "second.vtt").read_text() == "WEBVTT\n\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["srt", "vtt"]


class Bars(HTMLParser):
    """Collects bars, headings and everything that a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[dict[str, str | None]] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "i":
            self.bars.append(found)
        self.loaded += [str(found[name]) for name in ("src", "href") if name in found]


def test_the_page_shows_every_detection_and_loads_nothing(tmp_path: Path) -> None:
    write_output(tmp_path / "page.html", "html", FOUND, CLASSES)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Bars()
    page.feed(text)
    assert page.loaded == [] and "://" not in text and "@import" not in text
    titles = [str(bar["title"]) for bar in page.bars]
    assert titles == [
        f"{CLASSES[0]} -0.250, 0.25 to 1.00 s",
        f"{CLASSES[1]} 0.900, 3661.50 to 3662.00 s",
    ]
    assert "<b>" not in text and "second" in text and "no detection" in text
    styles = [str(bar["style"]) for bar in page.bars]
    assert "left:91.537%" in styles[1]
    assert len({re.search(r"background:[^;]*", style)[0] for style in styles}) == 2  # type: ignore[index]
    assert 'min="-0.25" max="0.9"' in text


@pytest.mark.parametrize(
    ("name", "asked", "kind"),
    [
        ("x.json", None, "json"), ("x", None, "json"), ("x.CSV", None, "csv"),
        ("x.htm", None, "html"), ("x.vtt", None, "vtt"), ("x.json", "csv", "csv"),
    ],
)  # fmt: skip
def test_the_suffix_names_the_format(
    name: str, asked: str | None, kind: str, tmp_path: Path
) -> None:
    assert output_format(tmp_path / name, asked) == kind


def test_a_folder_in_the_way_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a file; give another path"):
        output_format(tmp_path, "csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a folder, with one file a video"):
        output_format(tmp_path / "file", "srt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Trial]:
    """The folder of a model, features of the test videos, and the run that left the model."""
    folder = tmp_path_factory.mktemp("trained")
    trial = run_leaving_model(make_store(folder / "tiny", train=8), METHOD, folder / "run")
    return folder / "run", export_features(trial.task.store, folder / "features"), trial


@pytest.mark.parametrize("suffix", ["json", "csv", "srt", "vtt", "html"])
def test_only_files_of_a_prediction_are_replaced(
    suffix: str, run: tuple[Path, Path, Trial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, features, _ = run
    out = tmp_path / "found" / (suffix if suffix in ("srt", "vtt") else f"found.{suffix}")
    flags = ("--format", suffix)
    assert predict(model, features, out, *flags) == 0
    assert predict(model, features, out, *flags) == 0  # its own files give way
    file = sorted(out.iterdir())[0] if out.is_dir() else out
    file.write_text("mine")
    assert predict(model, features, out, *flags) == 2
    assert "was not written by this command and is not replaced" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert not [path for path in out.parent.rglob(".*")]


def test_an_export_replaces_an_export_alone(tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="model.pt2 there was not written by this command"):
        check_export(out, "ptal_ray.json")
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/extra/ptal_ray.json", "{}")
    check_export(out, "ptal_ray.json")


@pytest.mark.parametrize("suffix", ["csv", "vtt", "html"])
def test_the_command_writes_each_format(
    suffix: str, run: tuple[Path, Path, Trial], tmp_path: Path
) -> None:
    model, features, trial = run
    out = tmp_path / f"found.{suffix}"
    assert predict(model, features, out) == 0
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    assert len(files) == (3 if suffix == "vtt" else 1)
    shown = sum(path.read_text().count({"csv": "\n", "vtt": "-->", "html": "<i "}[suffix])
                for path in files)  # fmt: skip
    assert shown == sum(map(len, trial.detections.values())) + (suffix == "csv")


# One method of each network: an export takes seconds.
NETWORKS = {load(name).network: name for name in sorted(set(names()) & set(SMALL), reverse=True)}


@pytest.mark.parametrize("method", sorted(NETWORKS.values()))
def test_an_exported_network_gives_the_scores_of_the_model(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore.open(make_store(tmp_path / "tiny", train=8))
    plain, chosen = config(store.path, method), load(method)
    kind: Any = chosen.train_params
    hp = kind(**plain.train)
    model = chosen.build(store, hp).eval()
    write_model(tmp_path / "model.pt", model_file(Task.of(plain), model, plain.decode))
    out, network = tmp_path / "model.pt2", chosen.network
    if network is None:
        assert main([str(tmp_path), "--export", str(out)]) == 2
        assert f"--export: {method} chooses" in capsys.readouterr().err and not out.exists()
        return
    assert main([str(tmp_path), "--export", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] <= 1e-4
    more = {"ptal_ray.json": ""}
    program = torch.export.load(out, extra_files=more).module()
    about = json.loads(more["ptal_ray.json"])
    assert about["classes"] == ["ClassA", "ClassB", "ClassC"] and about["stride_s"] == 0.5
    length = about["lengths"]["least"] + 3 * about["lengths"]["step"]
    own = torch.zeros((1, length, 16))
    video = store.video("video8").features[:length]
    own[0, : len(video)] = torch.from_numpy(video.copy())
    mask = torch.arange(length)[None] < len(video)
    with torch.no_grad():
        expected = network(model, own, mask, hp)
        found = program(own, torch.tensor([len(video)]))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)
    assert main([str(tmp_path), "--export", str(tmp_path / "x.onnx")]) == 2
