"""The recommended model of a study, as a version in the registry of MLflow.

`mlflow.pyfunc.load_model` then loads it through `ptal_ray.prediction.pyfunc`.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ptal_ray.study.conclusion import conclusion
from ptal_ray.study.run_folder import MODEL
from ptal_ray.study.view import StudyView

LOADER = "ptal_ray.prediction.pyfunc"
_FOLDER = "model"


def registered_name(view: StudyView) -> str:
    """ptal-<method>-<dataset>."""
    name = f"ptal-{view.study.method}-{view.study.dataset}"
    return re.sub(r"[/:]", "_", name)


def recommended_run(view: StudyView) -> str:
    """Key of the final run whose model is recommended; "" before a study is done.

    Its other seeds are as good: the one with the best test result would be selected by it.
    """
    if view.end is None or view.end.state != "done":
        return ""
    role = "test" if view.has_test else "deploy"
    runs = [run for run in view.runs(role, conclusion(view).arm) if run.metrics]
    return f"{role}/{runs[0].arm}/seed{runs[0].seed}" if runs else ""


def model_path(view: StudyView, study_dir: Path) -> Path | None:
    """The model file of the recommended run on this machine; None where there is none."""
    key = recommended_run(view)
    run = next((f for f in view.finals if f"{f.role}/{f.arm}/seed{f.seed}" == key), None)
    if run is None or not run.detections:
        return None
    path = study_dir / Path(run.detections).parent / MODEL
    return path if path.is_file() else None


def register(client: Any, uri: str, name: str, run_id: str, path: Path) -> None:
    """Registers a model file once for its run, with the run as source.

    Args:
        client: of MLflow.
        uri: tracking URI, which is also that of the registry.
        name: of the registered model, made where it is missing.
        run_id: the run that left the file.
        path: the file.
    """
    # MLflow says this of its own classes while it imports them; nothing a user can mend.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    import mlflow
    from mlflow.exceptions import MlflowException

    from ptal_ray import __version__

    if client.search_model_versions(f"run_id = '{run_id}'"):
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / _FOLDER
        mlflow.pyfunc.save_model(
            path=str(made), loader_module=LOADER, data_path=str(path),
            pip_requirements=[f"ptal-ray=={__version__}"],
        )  # fmt: skip
        client.log_artifacts(run_id, str(made), _FOLDER)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
    client.create_model_version(name, source=source, run_id=run_id)
