"""A look at every node of a cluster before a study begins: what it would fail of later."""

from __future__ import annotations

from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, PtalError
from ptal_ray.study import Study

WITHIN_S = 120.0  # a node may have to start a process and unpack the job's files first


def inspect_nodes(study: Study) -> None:
    """Asks every living node for the data and the directory of a study.

    Raises:
        ConfigError: a node lacks this package or one of them.
    """
    found = ray.nodes()  # type: ignore[no-untyped-call]
    asked = {
        node["NodeManagerAddress"]: _look.options(  # type: ignore[attr-defined]
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(study.store), study.data_hash, str(study.directory))
        for node in found
        if node["Alive"]
    }
    for address, answer in asked.items():
        try:
            problem = ray.get(answer, timeout=WITHIN_S)
        except (ray.exceptions.RayError, ModuleNotFoundError) as error:
            problem = f"cannot look ({str(error).strip().splitlines()[-1]})"
        if problem:
            raise ConfigError(f"node {address}: {problem}")


@ray.remote(num_cpus=0, max_retries=0)
def _look(store: str, data_hash: str, directory: str) -> str:
    """What is wrong here; "" for nothing."""
    try:
        content = FeatureStore.open(Path(store)).info.content_hash
    except PtalError as error:
        return f"{error}; PTAL_DATA must be a folder that all nodes have, or s3://..."
    if content != data_hash:
        return f"{store}: another content than the study began with; copy it anew"
    if not (Path(directory) / "study.json").exists():
        return f"no {directory} there; --storage must be a folder that all nodes share, or s3://..."
    return ""
