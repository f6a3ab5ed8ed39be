"""Making an experiment where it is missing, and what every run of it has as input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ptal_ray.errors import TrackingError
from ptal_ray.study.event_types import StudyStart

DIGEST = 36  # characters of a content hash that MLflow keeps


def new_experiment(client: Any, name: str, location: str | None, tags: Mapping[str, str]) -> str:
    """Makes an experiment; the id of the one that another study has just made, where it has.

    Raises:
        TrackingError: that one is deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        made = client.create_experiment(name, artifact_location=location, tags=dict(tags))
        return str(made)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return living(found)


def set_tag(client: Any, experiment: str, key: str, value: str) -> None:
    """Sets a tag of an experiment. Of several studies that set a new one at the same moment, the
    database declines all but the first; they repeat it, and so replace the first one's."""
    from mlflow.exceptions import MlflowException

    try:
        client.set_experiment_tag(experiment, key, value)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.set_experiment_tag(experiment, key, value)


def living(experiment: Any) -> str:
    """The id of an experiment.

    Raises:
        TrackingError: it is deleted.
    """
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow: experiment {experiment.name!r} is deleted; restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, remove it with "
            "`mlflow gc`, or name another with MLFLOW_EXPERIMENT_NAME"
        )
    return str(experiment.experiment_id)


def dataset_input(study: StudyStart) -> Any:
    """The data of a study as MLflow takes it for an input of a run.

    Args:
        study: its "study" event.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    content = study.data_hash
    source = {"content": content, "features": study.features}
    dataset = Dataset(
        name=study.dataset,
        digest=content[:DIGEST],
        source_type="ptal_ray",
        source=json.dumps(source),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])
