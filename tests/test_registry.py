"""Models of the MLflow registry as MODEL of `python -m ptal_ray.predict`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_store
from mlflow_service import fresh_database
from small_study import METHOD
from synthetic_study import SyntheticStudy
from test_predict import assert_same, export_features, predict, results, run_leaving_model

from ptal_ray.errors import DataError
from ptal_ray.predict import main
from ptal_ray.tracking.tracker import MlflowTracker


def test_a_registered_model_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from mlflow import MlflowClient

    trial = run_leaving_model(make_store(tmp_path / "tiny", train=8), METHOD, tmp_path / "run")
    features = export_features(trial.task.store, tmp_path / "features")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    place = (tmp_path / "artifacts").as_uri()
    run = client.create_run(client.create_experiment("tiny", artifact_location=place)).info
    client.log_artifact(run.run_id, str(tmp_path / "run" / "model.pt"), "model")
    client.create_registered_model("ptal-tiny")
    client.create_model_version("ptal-tiny", f"{run.artifact_uri}/model", run.run_id)
    client.set_registered_model_alias("ptal-tiny", "best", "1")
    assert predict(tmp_path / "run", features, tmp_path / "own.json") == 0
    for name in ("models:/ptal-tiny/1", "models:/ptal-tiny@best"):
        flags = ["--features", str(features), "--out", str(tmp_path / "found.json")]
        assert main([name, *flags]) == 0
        assert_same(results(tmp_path / "found.json"), results(tmp_path / "own.json"))
    capsys.readouterr()
    for name in ("models:/ptal-tiny/2", "models:/ptal-none/1", "models:/"):
        assert main([name, *flags]) == 2
        said = capsys.readouterr().err
        assert f"error: {name}: not in the registry" in said and said.count("\n") == 1


@pytest.mark.parametrize("verdict, arm", [("better", "best"), ("tie", "default")])
def test_the_recommended_model_of_a_study_is_registered_once_and_finds_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, arm: str
) -> None:
    import mlflow

    trial = run_leaving_model(make_store(tmp_path / "tiny", train=8), METHOD, tmp_path / "run")
    features = export_features(trial.task.store, tmp_path / "features")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(fresh_database())
    study = SyntheticStudy(tmp_path / "studies" / "apn_demo-20260801-120000")
    study.begin()
    study.trials(2)
    study.finals()
    model = study.directory / f"final/{arm}_seed0/model.pt"
    shutil.copy(tmp_path / "run" / "model.pt", model)
    recommended = {"arm": int(arm == "best"), "trial": None}
    study.append("study_end", state="done", verdict=verdict, recommended=recommended)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):  # the second process registers nothing
        tracker = MlflowTracker(study.directory, uri)
        tracker.start()
        assert tracker.close(60) == ()
    assert len(mlflow.MlflowClient(uri).search_model_versions("name = 'ptal-apn-demo'")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/ptal-apn-demo/1")
    new = {path.stem: np.load(path) for path in features.glob("*.npy")}
    out = tmp_path / "own.json"
    words = ["models:/ptal-apn-demo/1", "--features", str(features), "--out", str(out)]
    assert main([*words, "--threads", "1"]) == 0
    assert_same(loaded.predict(new), results(out))
    first = next(iter(new))
    assert_same({first: loaded.predict(new[first])["video"]}, {first: results(out)[first]})
    with pytest.raises(DataError, match=r"video new: features of shape \(3, 5\), .* \(T, 16\)"):
        loaded.predict({"new": np.zeros((3, 5))})
