"""Models of the MLflow registry: their files, brought to this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from ptal_ray.errors import ConfigError, DataError
from ptal_ray.storage.folder import cache_root
from ptal_ray.study.run_folder import MODEL
from ptal_ray.tracking.server import default_uri, quiet_mlflow, redacted


def registered_model(address: str) -> Path:
    """The model file of a version in the registry, fetched anew: an alias may have moved.

    Args:
        address: models:/NAME/VERSION or models:/NAME@ALIAS; MLFLOW_TRACKING_URI says where.

    Raises:
        ConfigError: the registry has no such version, or does not answer.
        DataError: the version has no model file.
    """
    quiet_mlflow()
    import mlflow

    uri = default_uri(None)
    folder = cache_root() / ".models" / quote(address, safe="")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(uri)
        found = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(
            f"{address}: not in the registry of {redacted(uri)} ({error.error_code}); give "
            "models:/NAME/VERSION or models:/NAME@ALIAS, and MLFLOW_TRACKING_URI"
        ) from error
    files = sorted(found.rglob(MODEL)) if found.is_dir() else [found]
    if not files:
        raise DataError(
            f"{address}: contains no {MODEL}; register the file that a final run writes"
        )
    return files[0]
