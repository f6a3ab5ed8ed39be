"""Detections on new videos: those of the run that left the model, from features alone."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import METHOD, small_study
from test_trial import SMALL, config

from ptal_ray.backends.local import run_local
from ptal_ray.data.store import FeatureStore
from ptal_ray.methods.method import load, names
from ptal_ray.policy.policies import make_policy
from ptal_ray.predict import main
from ptal_ray.prediction import run as prediction_run
from ptal_ray.prediction.trained import TrainedModel
from ptal_ray.reporting.outcome import show_summary, summary
from ptal_ray.study.view import best_yaml
from ptal_ray.train import main as train_main
from ptal_ray.training.model_file import read_model, write_model
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

Results = dict[str, list[dict[str, Any]]]


def export_features(store: FeatureStore, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for id in store.ids("test"):
        np.save(folder / f"{id}.npy", store.video(id).features)
    return folder


def run_leaving_model(store: Path, method: str, out: Path, **train: Any) -> Trial:
    """A test run of a small model; its model file lies in `out`."""
    trial = start(
        config(store, method, train=train, fit_on="train", score_on="test", report_steps=(8,))
    )
    report = trial.advance()
    trial.save_model(out / "model.pt", report.decode)
    return trial


def results(path: Path) -> Results:
    content = json.loads(path.read_text())
    assert content["version"] and content["external_data"] == {}
    found: Results = content["results"]
    return found


def assert_same(found: Results, expected: Results) -> None:
    assert found.keys() == expected.keys()
    for id, items in expected.items():
        assert [item["label"] for item in found[id]] == [item["label"] for item in items]
        for key in ("segment", "score"):
            values = ([item[key] for item in each[id]] for each in (found, expected))
            np.testing.assert_allclose(*values, atol=1e-6)


def as_results(trial: Trial) -> Results:
    return {
        id: [
            {"segment": [s, e], "label": trial.task.store.info.classes[c], "score": score}
            for s, e, c, score in zip(
                found.start_s.tolist(), found.end_s.tolist(), found.label, found.score.tolist(),
                strict=True,
            )
        ]
        for id, found in trial.detections.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of a run in "run" and the test features in "features"."""
    folder = tmp_path_factory.mktemp("trained")
    export_features(
        run_leaving_model(store, METHOD, folder / "run").task.store, folder / "features"
    )
    return folder


@pytest.fixture
def features(trained: Path, tmp_path: Path) -> Path:
    """A copy of the test features, to damage."""
    return Path(shutil.copytree(trained / "features", tmp_path / "features"))


def predict(model: Path, features: Path, out: Path, *flags: str) -> int:
    words = [str(model), "--features", str(features), "--out", str(out), "--threads", "1"]
    return main([*words, *flags])


@pytest.mark.parametrize("method", sorted(set(names()) & set(SMALL)))
def test_detections_are_those_of_the_run(method: str, store: Path, tmp_path: Path) -> None:
    trial = run_leaving_model(store, method, tmp_path / "run")
    assert any(map(len, trial.detections.values()))
    features = export_features(trial.task.store, tmp_path / "features")
    assert predict(tmp_path / "run" / "model.pt", features, tmp_path / "found.json") == 0
    assert_same(results(tmp_path / "found.json"), as_results(trial))


def test_class_embeddings_travel_in_the_model_file(store: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.npy"
    np.save(texts, np.random.default_rng(0).standard_normal((3, 5)))
    with_text = [m for m in SMALL if hasattr(load(m).train_params(), "text_encoder")]
    assert with_text
    for method in with_text:
        trial = run_leaving_model(store, method, tmp_path / method, text_encoder=str(texts))
        features = export_features(trial.task.store, tmp_path / method / "features")
        texts.rename(tmp_path / "elsewhere.npy")
        assert predict(tmp_path / method, features, tmp_path / "found.json") == 0
        assert_same(results(tmp_path / "found.json"), as_results(trial))


def test_a_study_predicts_as_its_own_final_run_without_its_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path, "budget.trials=2", "budget.max_steps=20")
    view = run_local(study, make_policy(study))
    features = export_features(FeatureStore.open(study.store), tmp_path / "features")
    shutil.rmtree(study.store)
    for arm in ("best", "default"):
        own = study.directory / "final" / f"{arm}_seed0"
        given = study.directory if arm == "best" else own
        assert predict(given, features, tmp_path / "found.json") == 0
        assert_same(results(tmp_path / "found.json"), results(own / "detections.json"))
    assert not list(study.directory.glob("final/candidate*/model.pt"))
    said = show_summary(summary(study, tmp_path, ()))
    assert f"python -m ptal_ray.predict {study.directory} --features DIR" in said
    assert predict(study.trial_directory(0), features, tmp_path / "x.json") == 3
    (study.directory / "final/best_seed0/model.pt").unlink()
    assert predict(study.directory, features, tmp_path / "x.json") == 3
    assert "ended before models were kept" in capsys.readouterr().err
    best = study.directory / "final" / "best_seed1" / "best.yaml"
    text = best_yaml(view)
    assert text is not None
    best.write_text(text)
    assert predict(best, features, tmp_path / "found.json") == 0
    assert_same(results(tmp_path / "found.json"), results(best.with_name("detections.json")))
    best.write_text(re.sub(r"\blr: [^,}\n]*", "lr: 0.123", text))
    assert predict(best, features, tmp_path / "x.json") == 3
    assert "of another configuration" in capsys.readouterr().err
    best.write_text(re.sub(r"\bnms_tiou: [^,}\n]*", "nms_tiou: 0.123", text))
    assert predict(best, features, tmp_path / "x.json") == 3
    assert "decode.nms_tiou is 0.123, but model.pt beside it has" in capsys.readouterr().err


def test_train_leaves_a_model(
    store: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTAL_DATA", str(store.parent))
    space = tmp_path / "small.yaml"
    values = "".join(f"  {k}: {v}\n" for k, v in SMALL[METHOD].items())
    space.write_text(
        f"method: {METHOD}\ndataset: tiny\nbudget: {{trials: 1, min_steps: 4, max_steps: 8}}\n"
        f"selection: {{val_fraction: 0.34}}\ntrain:\n{values}"
    )
    out = tmp_path / "run"
    assert train_main([str(space), "--test", "--out", str(out), "--threads", "1"]) == 0
    assert predict(out, trained / "features", tmp_path / "found.json") == 0
    assert_same(results(tmp_path / "found.json"), results(out / "detections.json"))


def test_broken_files_are_listed_and_the_others_scored(
    trained: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = np.load(features / "video8.npy")
    dim = good.shape[1]
    bad = {
        "nan": np.where(np.arange(dim) == 3, np.nan, good), "turned": good.T[:, :20],
        "wide": good[:, :5], "flat": good[0], "words": np.array([["a"] * dim]),
        "objects": np.array([{}], dtype=object),
    }  # fmt: skip
    for id, array in bad.items():
        np.save(features / f"{id}.npy", array)
    (features / "cut.npy").write_bytes((features / "video9.npy").read_bytes()[:300])
    assert predict(trained / "run", features, tmp_path / "found.json", "--json") == 0
    said = json.loads(capsys.readouterr().out)["refused"]
    assert set(said) == {*bad, "cut"}
    assert "[0, 3] is nan" in said["nan"]
    assert "looks transposed" in said["turned"]
    assert f"5 numbers a snippet; the model was trained on (T, {dim})" in said["wide"]
    assert "not a whole .npy" in said["cut"] and "not a whole .npy" in said["objects"]
    assert set(results(tmp_path / "found.json")) == {"video8", "video9", "video10"}
    assert predict(trained / "run", features, tmp_path / "found.json") == 0
    assert "7 videos could not be used:\n  cut: not a whole" in capsys.readouterr().out


def test_without_any_sound_video_nothing_is_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wide").mkdir()
    np.save(tmp_path / "wide" / "a.npy", np.ones((40, 7), np.float32))
    assert predict(trained / "run", tmp_path / "wide", tmp_path / "found.json") == 3
    said = capsys.readouterr().err
    assert "none of 1 videos could be scored" in said and "7 numbers" in said and "(T, 16)" in said
    assert not (tmp_path / "found.json").exists()
    (tmp_path / "none").mkdir()
    for folder in (tmp_path / "none", tmp_path / "missing"):
        assert predict(trained / "run", folder, tmp_path / "found.json") == 3
        assert str(folder) in capsys.readouterr().err


def test_half_precision_features_and_durations(
    trained: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in features.glob("*.npy"):
        np.save(path, np.load(path).astype(np.float16))
    table = tmp_path / "durations.csv"
    rows = [f"{p.stem}, {len(np.load(p)) / 2 - 0.75}\n" for p in sorted(features.glob("*.npy"))]
    table.write_text("\ufeffvideo, duration\n" + "".join(rows[1:]), encoding="utf-8")
    out = tmp_path / "found.json"
    assert predict(trained / "run", features, out, "--durations", str(table)) == 0
    assert "have no row for it" in capsys.readouterr().out
    assert set(results(out)) == {"video8", "video9"}
    table.write_text("video,duration\nvideo8,500\nvideo9,20\nvideo10,24\n")
    assert predict(trained / "run", features, out, "--durations", str(table), "--json") == 0
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert "cover" in refused["video8"] and "500.0 s" in refused["video8"]
    table.write_text("video;duration\nv_video8;24\nvideo9;26\nvideo10;24\n")  # as imports read
    assert predict(trained / "run", features, out, "--durations", str(table), "--json") == 0
    assert not json.loads(capsys.readouterr().out)["refused"]
    table.write_text("video,duration\nvideo8,24\nvideo8,20\n")
    assert predict(trained / "run", features, out, "--durations", str(table)) == 3
    assert (
        "durations.csv:3: video video8: an earlier line has another duration"
        in capsys.readouterr().err
    )
    table.write_text("video,seconds\nvideo8,500\n")
    assert predict(trained / "run", features, out, "--durations", str(table)) == 3
    table.write_text("video,duration\nvideo8,-1\n")
    assert predict(trained / "run", features, out, "--durations", str(table)) == 3
    assert "positive" in capsys.readouterr().err


def test_another_stride_is_refused_unless_allowed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, out = trained / "features", tmp_path / "found.json"
    assert predict(trained / "run", features, out) == 0
    whole = results(out)
    assert predict(trained / "run", features, out, "--fps", "30", "--stride", "15") == 0
    assert_same(results(out), whole)
    other = ("--fps", "30", "--stride", "30")
    assert predict(trained / "run", features, out, *other) == 3
    said = capsys.readouterr().err
    assert "snippets of 0.5 s" in said and "have 1 s" in said and said.count("\n") == 1
    assert predict(trained / "run", features, out, *other, "--allow-stride") == 0
    twice = results(out)
    for id, items in whole.items():
        assert [i["segment"][0] for i in twice[id]] == pytest.approx(
            [2 * i["segment"][0] for i in items]
        )


def test_damaged_foreign_and_newer_files_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = trained / "run" / "model.pt"
    model = read_model(good)
    content = torch.load(good, weights_only=True)
    other = next(n for n in names() if n != model.method)
    files = {
        "damaged or no model file": good.read_bytes()[:-100],
        "give the model.pt of": {"a": 1},
        "model.pt beside this checkpoint": {"config": "x", "optimizer": {}},
        "install that version or a newer one": content | {"format": 99, "version": "9.0"},
        "damaged model file": {k: v for k, v in content.items() if k != "weights"},
        "is unknown": content | {"method": "../x"},
        "train.": content | {"train": content["train"] | {"later": 1}},
        "weights of another version": content | {"weights": {}},
        "have different parameters": content | {"method": other},
    }
    path = tmp_path / "model.pt"
    for message, file in files.items():
        path.write_bytes(file) if isinstance(file, bytes) else torch.save(file, path)
        assert predict(path, trained / "features", tmp_path / "found.json") == 3, message
        said = capsys.readouterr().err
        assert message in said and said.startswith(f"error: {path}: ") and said.count("\n") == 1
    assert predict(tmp_path / "none.pt", trained / "features", tmp_path / "found.json") == 3
    assert predict(tmp_path, trained / "features", tmp_path / "found.json") == 3
    write_model(path, model)
    assert predict(path, trained / "features", tmp_path / "found.json") == 0


def test_an_interrupted_prediction_continues(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    features, out = trained / "features", tmp_path / "found.json"
    assert predict(trained / "run", features, tmp_path / "whole.json") == 0
    monkeypatch.setattr(prediction_run, "SCORE_SNIPPETS", 1)  # a batch a video
    detect, seen = TrainedModel.detect, []

    def stopping(self: TrainedModel, videos: Any) -> Any:
        seen.extend(videos)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return detect(self, videos)

    monkeypatch.setattr(TrainedModel, "detect", stopping)
    assert predict(trained / "run", features, out) == 130
    assert "repeat the command to continue" in capsys.readouterr().err
    assert not out.exists() and len(seen) == 2
    partial = tmp_path / ".found.json.partial"
    partial.write_text(partial.read_text() + '{"id": "half')
    assert predict(trained / "run", features, out) == 0
    assert len(seen) == 4 and seen[1] == seen[2] and not partial.exists()
    assert_same(results(out), results(tmp_path / "whole.json"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.json", "whole.json"]


def test_a_partial_result_of_another_model_is_not_taken(
    trained: Path, features: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    assert predict(trained / "run", features, out) == 0
    expected = results(out)
    wrong = {"id": "video8", "from": [0, 0, 0], "found": {}}
    text = json.dumps({"model": "another"}) + "\n" + json.dumps(wrong) + "\n"
    (tmp_path / ".found.json.partial").write_text(text)
    assert predict(trained / "run", features, out) == 0
    assert_same(results(out), expected)


def test_min_score_and_top_choose_detections(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert predict(trained / "run", trained / "features", out) == 0
    whole = results(out)
    least = float(np.median([item["score"] for items in whole.values() for item in items]))
    assert predict(trained / "run", trained / "features", out, "--min-score", str(least)) == 0
    for id, items in results(out).items():
        assert items == [item for item in whole[id] if item["score"] >= least]
    assert predict(trained / "run", trained / "features", out, "--top", "2") == 0
    for id, items in results(out).items():
        best = sorted((item["score"] for item in whole[id]), reverse=True)[:2]
        assert sorted((item["score"] for item in items), reverse=True) == best


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top", "0"], "--top"), (["--fps", "30"], "--stride"), (["--window", "3"], "--fps"),
        (["--stride", "-1", "--fps", "3"], "--stride"), (["--device", "no"], "--device no"),
        (["--min-score", "nan"], "--min-score"), (["--threads", "0"], "--threads"),
        (["--export", "x.pt2"], "--export cannot be combined with"),
    ],
)  # fmt: skip
def test_wrong_flags_exit_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str],
    message: str,
) -> None:  # fmt: skip
    assert predict(trained / "run", trained / "features", tmp_path / "x.json", *flags) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert main([str(trained / "run")]) == 2


def test_external_data_is_rounded_as_the_store_rounds_it(
    trained: Path, features: Path, tmp_path: Path
) -> None:
    model = read_model(trained / "run" / "model.pt")
    write_model(tmp_path / "model.pt", dataclasses.replace(model, dtype="float16"))
    big = np.load(features / "video8.npy")
    big[0, 0] = 1e6
    np.save(features / "video8.npy", big)
    assert predict(tmp_path / "model.pt", features, tmp_path / "found.json") == 0
    assert "video8" not in results(tmp_path / "found.json")
    for path in features.glob("video[91]*.npy"):
        np.save(path, np.load(path).astype(np.float16))
    assert predict(tmp_path / "model.pt", features, tmp_path / "half.json") == 0
    assert_same(results(tmp_path / "half.json"), results(tmp_path / "found.json"))
