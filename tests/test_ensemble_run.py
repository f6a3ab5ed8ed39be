"""An ensemble that `train` makes and `predict` uses: members trained, averaged, decoded once."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_method import METHOD as TOY
from toy_study import SPACE, toy_store, use_toy

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.types import Scores
from ptal_ray.predict import main as predict_main
from ptal_ray.space.members import Member
from ptal_ray.space.space import parse_space
from ptal_ray.study import ensemble_run
from ptal_ray.train import main as train_main
from ptal_ray.training.model_file import read_model, write_model

MEMBERS = """
ensemble:
- {times: 2, train: {}}
- {times: 1, train: {lr: 0.1}}
"""
BEST = SPACE.replace("{loguniform: [1e-3, 1e-1]}", "0.03").replace(
    "{threshold: {uniform: [0.1, 0.9]}}", "{threshold: 0.3}"
)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    use_toy(monkeypatch)
    for module in ("prediction.trained", "study.feasibility"):
        monkeypatch.setattr(f"ptal_ray.{module}.load", lambda name: TOY)
    monkeypatch.setattr("ptal_ray.prediction.trained.names", lambda: ("toy",))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PTAL_DATA", str(tmp_path))
    return toy_store(tmp_path)


@pytest.fixture
def best(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text(BEST + MEMBERS)
    return path


def train(best, out, *flags):
    return train_main([str(best), "--ensemble", "--out", str(out), "--threads", "1", *flags])


def features(store, folder):
    folder.mkdir()
    for id in store.ids("test"):
        np.save(folder / f"{id}.npy", store.video(id).features)
    return folder


def predict(model, features, out, *flags):
    words = [str(model), "--features", str(features), "--out", str(out), "--threads", "1"]
    return predict_main([*words, *flags])


def decoded_by_hand(store, out):
    """Detections of the mean of the scores, in the layout of the files."""
    models, found = [read_model(out / f"member{k}" / "model.pt") for k in (1, 2)], {}
    assert models[0].train["lr"] == 0.03 and models[1].train["lr"] == 0.1
    for id in store.ids("test"):
        x = torch.tensor(store.video(id).features, dtype=torch.float32)
        one, other = (
            torch.sigmoid(x @ m.weights["weight"][:, :, 0].T + m.weights["bias"]).numpy()
            for m in models
        )
        scores = Scores(id=id, arrays={"probability": (2 * one + other) / 3})
        hp = TOY.decode_params(threshold=0.3)
        own = TOY.decode(scores, stored_grid(store, id, 0), store.duration_s(id), hp)
        found[id] = [
            (s, e, store.info.classes[c], p)
            for s, e, c, p in zip(own.start_s, own.end_s, own.label, own.score, strict=True)
        ]
    return found


def same(path, expected):
    found = json.loads(path.read_text())["results"]
    assert found.keys() == expected.keys() and any(expected.values())
    for id, rows in expected.items():
        assert [item["label"] for item in found[id]] == [row[2] for row in rows]
        ours = [[*item["segment"], item["score"]] for item in found[id]]
        np.testing.assert_allclose(ours, [[r[0], r[1], r[3]] for r in rows], atol=1e-6)


def test_predict_averages_the_scores_of_the_members_that_train_made(store, best, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(best, out, "--test") == 0
    said = capsys.readouterr().out
    assert said.count("mAP") == 1
    assert re.search(r"^ensemble  test mAP 0\.\d{4} .* of 3 videos$", said, re.MULTILINE)
    expected = decoded_by_hand(store, out)
    same(out / "detections.json", expected)
    folder = features(store, tmp_path / "features")
    for given in (out, out / "ensemble.json"):
        assert predict(given, folder, tmp_path / "found.json") == 0
        same(tmp_path / "found.json", expected)
    report = json.loads((out / "report.json").read_text())
    assert report["members"] == [2, 1] and report["decode"] == {"threshold": 0.3}
    assert report["metrics"]["test/num_videos"] == 3
    assert "test/mAP_avg" not in (out / "member1" / "report.json").read_text()


def test_members_are_judged_on_the_selection_fold_or_not_at_all(store, best, tmp_path, capsys):
    assert train(best, tmp_path / "fold", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["step"] == 8 and 0 <= report["metrics"]["val/mAP_avg"] == report["objective"]
    assert train(best, tmp_path / "whole", "--whole") == 0
    assert "ensemble  " not in capsys.readouterr().out
    assert json.loads((tmp_path / "whole" / "detections.json").read_text())["results"] == {}
    folder = features(store, tmp_path / "features")
    assert predict(tmp_path / "whole", folder, tmp_path / "found.json") == 0


def test_an_interrupted_ensemble_goes_on(store, best, tmp_path, monkeypatch, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(best, whole, "--test") == 0
    trained = ensemble_run._trained
    with monkeypatch.context() as patch:

        def first_alone(args, config, folder, device, watch):
            if folder.name == "member2":
                raise KeyboardInterrupt
            return trained(args, config, folder, device, watch)

        patch.setattr(ensemble_run, "_trained", first_alone)
        assert train(best, cut, "--test") == 130
    assert "--resume continues" in capsys.readouterr().err
    before = (cut / "member1" / "model.pt").stat().st_mtime_ns
    assert train(best, cut, "--test", "--resume") == 0
    assert (cut / "member1" / "model.pt").stat().st_mtime_ns == before
    assert (cut / "detections.json").read_text() == (whole / "detections.json").read_text()
    assert train(best, cut, "--test", "--resume") == 2
    assert "is complete" in capsys.readouterr().err
    assert train(best, tmp_path / "new", "--test", "--resume") == 2
    assert "leave out --resume" in capsys.readouterr().err


def test_a_single_run_and_an_ensemble_do_not_share_a_folder(store, best, tmp_path, capsys):
    single = ["--threads", "1", "--out"]
    assert train_main([str(best), *single, str(tmp_path / "one")]) == 0
    assert train(best, tmp_path / "one") == 2
    assert train(best, tmp_path / "many") == 0
    assert train(best, tmp_path / "many") == 0  # an earlier one gives way
    capsys.readouterr()
    assert train_main([str(best), *single, str(tmp_path / "many")]) == 2
    assert "was not written by this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no section ensemble:"),
        ("ensemble: {times: 1}", "ensemble: must be a list of two members or more"),
        ("ensemble:\n- {times: 1}", "ensemble: must be a list of two members or more"),
        ("ensemble:\n- {times: 1}\n- {train: {lr: 0.1}}", "ensemble[1].times: is missing"),
        ("ensemble:\n- {times: 1}\n- 3", "ensemble[1]: must be a mapping"),
        ("ensemble:\n- {times: 1}\n- {times: 0}", "ensemble[1].times: 0 is not allowed"),
        ("ensemble:\n- {times: 1}\n- {times: 1, decode: {}}", "'decode' is not a key"),
        ("ensemble:\n- {times: 1}\n- {times: 1, train: {lrr: 1}}", "did you mean 'lr'?"),
        (
            "ensemble:\n- {times: 1}\n- {times: 1, train: {lr: {uniform: [0.1, 0.2]}}}",
            "ensemble[1].train.lr: a member has single values",
        ),
        (
            "ensemble:\n- {times: 1}\n- {times: 1, train: {resample_to: 20}}",
            "train.resample_to of members is 0 and 20",
        ),
    ],
)
def test_a_wrong_list_of_members_is_an_error_of_one_line(store, tmp_path, capsys, text, said):
    path = tmp_path / "best.yaml"
    path.write_text(f"{BEST}\n{text}\n")
    assert train(path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert said in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_ensemble_is_judged_by_map(store, best, tmp_path, capsys):
    assert train(best, tmp_path / "run", "--set", "selection.metric=points") == 2
    assert "--set selection.metric=map" in capsys.readouterr().err


def test_members_are_read_back_as_they_were_written(best):
    space = parse_space(best.read_text(), name="best", source="best.yaml")
    assert space.ensemble == (Member(times=2), Member(times=1, train={"lr": 0.1}))
    assert parse_space(space.to_yaml(), name="best", source="best.yaml") == space


@pytest.fixture
def trained(store, best, tmp_path, capsys):
    assert train(best, tmp_path / "run") == 0
    features(store, tmp_path / "features")
    capsys.readouterr()
    return tmp_path / "run"


def change_classes(model):
    return replace(model, data=replace(model.data, classes=("a", "b", "c")))


def change_grid(model):
    return replace(model, grid=replace(model.grid, stride_s=3.0))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change_classes, "classes: ('a', 'b', 'c') here"),
        (change_grid, "grid: Grid(stride_s=3.0"),
        (lambda m: replace(m, strides=(1.0, 3.0)), "strides: (1.0, 3.0) here"),
        (lambda m: replace(m, train=m.train | {"resample_to": 9}), "train.resample_to: 9 here, 0"),
        (lambda m: replace(m, decode={"threshold": 0.9}), "decode parameters"),
    ],
)
def test_members_that_do_not_fit_are_one_error(trained, tmp_path, capsys, changed, said):
    path = trained / "member2" / "model.pt"
    write_model(path, changed(read_model(path)))
    assert predict(trained, tmp_path / "features", tmp_path / "found.json") == 3
    error = capsys.readouterr().err
    assert f"{path}: does not fit {trained / 'member1' / 'model.pt'}: " in error and said in error
    assert "--ensemble --out DIR" in error and error.count("\n") == 1
    assert not (tmp_path / "found.json").exists()


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ("{", "damaged, or no ensemble.json of format 1"),
        ({"kind": "ptal_ray ensemble", "format": 1, "members": []}, "a member needs model"),
        ({"format": 2}, "damaged, or no ensemble.json of format 1"),
        ({"members": [{"model": "member1/model.pt", "times": 0}]}, "times, 1 or more"),
        ({"members": [{"model": "../model.pt", "times": 1}]}, "outside"),
        ({"members": [{"model": "member3/model.pt", "times": 1}]}, "cannot be read"),
    ],
)
def test_a_damaged_ensemble_is_one_error(trained, tmp_path, capsys, plain, said):
    path = trained / "ensemble.json"
    whole = json.loads(path.read_text())
    path.write_text(plain if isinstance(plain, str) else json.dumps(whole | plain))
    assert predict(trained, tmp_path / "features", tmp_path / "found.json") == 3
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_ensemble_is_not_exported(trained, tmp_path, capsys):
    assert predict_main([str(trained), "--export", str(tmp_path / "model.pt2")]) == 2
    assert "member1/model.pt --export" in capsys.readouterr().err


def test_another_model_of_a_member_starts_an_interrupted_prediction_anew(trained, tmp_path):
    from ptal_ray.prediction.run import identity
    from ptal_ray.prediction.trained import load_model

    path, cpu = trained / "ensemble.json", torch.device("cpu")
    before = identity(load_model(path, cpu), "cpu")
    shutil.copy(trained / "member1" / "model.pt", trained / "member2" / "model.pt")
    assert identity(load_model(path, cpu), "cpu") != before
