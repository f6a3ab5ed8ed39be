"""Checks every node of a cluster before a study starts."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ptal_ray.data.datasets import present
from ptal_ray.errors import ConfigError, PtalError, StorageError
from ptal_ray.storage.folder import Folder
from ptal_ray.study.mirror import DRIVER
from ptal_ray.study.study import Study

WITHIN_S = 120.0  # a node may first have to start a process and unpack the job's files
COPIED_S = 3600.0  # or copy the data


def inspect_nodes(study: Study) -> None:
    """Check that every live node has access to the data and the directory of a study.

    Raises:
        ConfigError: a node lacks this package or one of them.
    """
    found = ray.nodes()  # type: ignore[no-untyped-call]
    asked = [
        (
            node["NodeManagerAddress"],
            _look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(study),
        )
        for node in found
        if node["Alive"]
    ]
    within_s = COPIED_S if Folder.parse(study.source).remote else WITHIN_S
    for address, answer in asked:
        try:
            problem = ray.get(answer, timeout=within_s)
        except (ray.exceptions.RayError, ModuleNotFoundError) as error:
            problem = f"check failed ({str(error).strip().splitlines()[-1]})"
        if problem:
            raise ConfigError(f"node {address}: {problem}")


@ray.remote(num_cpus=0, max_retries=0)
def _look(study: Study) -> str:
    """The problem on this node, or "". Copies data from an address."""
    try:
        present(str(study.store), study.source, study.data_hash)
    except PtalError as error:
        return f"{error}; PTAL_DATA must be a folder that all nodes share, or s3://..."
    try:
        if study.place.remote and (study.place / DRIVER).read() is None:
            return f"cannot read {study.remote}; set the same AWS_ENDPOINT_URL on all nodes"
    except StorageError as error:
        return str(error)
    if not study.remote and not (study.directory / "study.json").exists():
        return (
            f"{study.directory} does not exist on this node; --storage must be a folder that all "
            "nodes share, or s3://..."
        )
    return ""
