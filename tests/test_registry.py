"""Models of the MLflow registry as MODEL of `python -m ptal_ray.predict`."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_store
from small_study import METHOD
from test_predict import assert_same, export_features, predict, results, run_leaving_model

from ptal_ray.predict import main


@pytest.mark.filterwarnings("ignore:The ..noload.. loader")  # of MLflow
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
