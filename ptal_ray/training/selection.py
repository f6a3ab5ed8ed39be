"""What a configuration is judged by, and the one place where annotations are read for it."""

from __future__ import annotations

from collections.abc import Sequence

from ptal_ray.data.datasets import Protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import FloatArray, Segments
from ptal_ray.errors import ConfigError, DataError


def ground_truth(store: FeatureStore, ids: Sequence[str], score_on: str) -> dict[str, Segments]:
    """Annotations to score detections with. Search trials cannot reach those of the test split.

    Args:
        store: where they lie.
        ids: videos to score.
        score_on: "val" or "test", as in the trial's configuration.

    Returns:
        Instances by video id.

    Raises:
        ConfigError: test videos are asked for by a run that is not scored on the test split.
        DataError: no video has an annotated instance.
    """
    if score_on != "test" and (sealed := set(store.ids("test")).intersection(ids)):
        raise ConfigError(
            f"score_on: {score_on!r} may not read the annotations of test video {min(sealed)}; "
            "the test split is read only by runs with score_on 'test'"
        )
    check_instances(store, ids, score_on)
    return {i: store.annotations(i) for i in ids}


def check_instances(store: FeatureStore, ids: Sequence[str], split: str) -> None:
    """Says whether mAP on a split means anything; hands out no annotation.

    Args:
        store: where annotations lie.
        ids: videos of the split.
        split: "fit", "train", "val" or "test", for the message.

    Raises:
        DataError: no video has an annotated instance.
    """
    if any(len(store.annotations(i)) for i in ids):
        return
    other = " or choose another fold (selection.fold_seed)" if split in ("fit", "val") else ""
    raise DataError(
        f"{store.path}: no annotated instance in the {len(ids)} videos of split {split!r}; "
        f"{'mAP needs' if split in ('val', 'test') else 'training needs'} some: import "
        f"annotations{other}"
    )


def map_metrics(per_tiou: FloatArray, protocol: Protocol) -> dict[str, float]:
    """Named mAP values; legal as MLflow metric names.

    Args:
        per_tiou: (K,) mAP at each threshold of the protocol, fractions.
        protocol: thresholds and averages of the dataset.

    Returns:
        "mAP_0.50" for each threshold, "mAP_avg" (the objective) and "mAP_avg_0.10-0.70" for each
        average.
    """
    at = {round(t, 4): float(v) for t, v in zip(protocol.tiou, per_tiou, strict=True)}
    averages = {
        name: sum(at[round(t, 4)] for t in tiou) / len(tiou)
        for name, tiou in protocol.averages.items()
    }
    first = next(iter(averages.values()))
    return (
        {f"mAP_{t:.2f}": v for t, v in at.items()}
        | {"mAP_avg": first}
        | {f"mAP_avg_{name}": v for name, v in averages.items()}
    )


def objective(metrics: dict[str, float]) -> float:
    """What a search maximises: mAP averaged over the first average of the protocol, a fraction."""
    return metrics["mAP_avg"]
