"""The evaluation of a configuration; only this module reads annotations for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ptal_ray.data.datasets import Protocol, protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import FloatArray, IntArray, Points, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.point_metrics import mean_length_s, point_log_likelihood, pure_hits

SHORT, LONG = 0.5, 2.0  # reliable range of lengths, relative to the pseudo-labels
LIKELIHOOD = 0.2  # power of the likelihood in the points score; 0.1 to 0.4 choose about as well
CALLED = {"mAP_avg": "mAP", "hit_mAP": "pure-hit mAP"}  # by metric, in order of preference


def ground_truth(store: FeatureStore, ids: Sequence[str], score_on: str) -> dict[str, Segments]:
    """Annotations to evaluate detections. Search trials cannot read those of the test split.

    Args:
        store: the feature store.
        ids: videos to score.
        score_on: "val" or "test", as in the trial's configuration.

    Returns:
        Instances by video id.

    Raises:
        ConfigError: a run that is not scored on the test split requests test videos.
        DataError: no video has an annotated instance.
    """
    _check_seal(store, ids, score_on)
    if not _annotated(store, ids):
        raise DataError(f"no annotated segment in the {len(ids)} videos of split {score_on!r}")
    return {i: store.annotations(i) for i in ids}


def held_out_points(store: FeatureStore, ids: Sequence[str], score_on: str) -> dict[str, Points]:
    """Points to evaluate detections, see `ground_truth`.

    Raises:
        ConfigError: as `ground_truth`.
        DataError: no video has a point.
    """
    _check_seal(store, ids, score_on)
    found = {i: store.points(i) for i in ids}
    if not any(map(len, found.values())):
        lack = "annotated instance and no point" if score_on == "test" else "point"
        needs = "selection.metric: points needs some: import points"
        raise DataError(_nothing(store, len(ids), score_on, lack, needs))
    return found


def _check_seal(store: FeatureStore, ids: Sequence[str], score_on: str) -> None:
    if score_on != "test" and (sealed := set(store.ids("test")).intersection(ids)):
        raise ConfigError(
            f"score_on: {score_on!r} may not read the annotations of test video {min(sealed)}; "
            "the test split is read only by runs with score_on 'test'"
        )


def check_instances(store: FeatureStore, ids: Sequence[str], split: str) -> None:
    """Check that mAP on a split is defined; returns no annotation.

    Args:
        store: the feature store.
        ids: videos of the split.
        split: "fit", "train", "val" or "test", for the message.

    Raises:
        DataError: no video has an annotated instance.
    """
    if _annotated(store, ids):
        return
    needs = "mAP needs" if split in ("val", "test") else "training needs"
    needs += " some: import annotations"
    if split == "val" and not _annotated(store, store.ids("train")):
        raise DataError(
            f"{store.path}: no annotated instance in the {len(ids)} videos of split 'val', nor in "
            "any other training video; select by their points (--set selection=points), or import "
            "annotations"
        )
    raise DataError(_nothing(store, len(ids), split, "annotated instance", needs))


def _annotated(store: FeatureStore, ids: Sequence[str]) -> bool:
    return any(len(store.annotations(i)) for i in ids)


def _nothing(store: FeatureStore, videos: int, split: str, lack: str, needs: str) -> str:
    other = " or choose another fold (selection.fold_seed)" if split in ("fit", "val") else ""
    return f"{store.path}: no {lack} in the {videos} videos of split {split!r}; {needs}{other}"


def check_selection(store: FeatureStore, ids: Sequence[str], score_on: str, metric: str) -> None:
    """Check that the metric of a run is defined on `ids`; returns no annotation.

    Args:
        store: the feature store.
        ids: videos to score.
        score_on: "val" or "test".
        metric: "map" or "points".

    Raises:
        DataError: no video has an instance or point.
    """
    if metric == "map":
        check_instances(store, ids, score_on)
    elif score_on != "test" or not _annotated(store, ids):
        held_out_points(store, ids, score_on)


@dataclass(frozen=True, kw_only=True)
class ByMap:
    """mAP on annotated videos.

    Args:
        truth: instances by video; their labels are below `num_classes`.
        num_classes: C.
        protocol: thresholds and averages of the dataset.
    """

    name: ClassVar[str] = "mAP_avg"
    truth: Mapping[str, Segments]
    num_classes: int
    protocol: Protocol

    @property
    def labels(self) -> dict[str, IntArray]:
        """The class of each instance or point, by video."""
        return {id: own.label for id, own in self.truth.items()}

    def metrics(self, found: Mapping[str, Segments]) -> dict[str, float]:
        """Named metrics of detections on the videos in `found`; see `map_metrics`."""
        truth = {id: self.truth[id] for id in found}
        result = detection_map(truth, found, self.num_classes, self.protocol.tiou)
        return map_metrics(result.per_tiou, self.protocol)


@dataclass(frozen=True, kw_only=True)
class ByPoints:
    """Evaluation of detections with held-out points only.

    Args:
        points: by video; their labels are below `num_classes`.
        num_classes: C.
        duration_s: of each video.
        label_length_s: mean length of the pseudo-labels, see `label_quality.label_length_s`; NaN if
            the method has none.
    """

    name: ClassVar[str] = "points_score"
    points: Mapping[str, Points]
    num_classes: int
    duration_s: Mapping[str, float]
    label_length_s: float

    @property
    def labels(self) -> dict[str, IntArray]:
        """The class of each instance or point, by video."""
        return {id: own.label for id, own in self.points.items()}

    def metrics(self, found: Mapping[str, Segments]) -> dict[str, float]:
        """Named metrics of detections on the videos in `found`.

        Returns:
            "points_score", the objective, see `points_score`; "hit_mAP", see `pure_hits`;
            "point_log_likelihood"; and, if known, "label_length_s" and "length_ratio": the mean
            length of the best detections (as many per class as there are points), divided by that
            of the pseudo-labels.
        """
        points = {id: self.points[id] for id in found}
        hits = pure_hits(points, found, self.num_classes).mean
        label = np.concatenate([own.label for own in points.values()])
        numbers = np.bincount(label, minlength=self.num_classes)
        ratio = mean_length_s(found, numbers) / self.label_length_s
        likelihood = point_log_likelihood(points, found, self.num_classes, self.duration_s)
        lengths = {"label_length_s": self.label_length_s, "length_ratio": ratio}
        known = {name: value for name, value in lengths.items() if np.isfinite(value)}
        return {
            "points_score": points_score(hits, likelihood, ratio),
            "hit_mAP": hits,
            "point_log_likelihood": likelihood,
        } | known


Objective = ByMap | ByPoints


def objective_of(
    store: FeatureStore,
    ids: Sequence[str],
    score_on: str,
    metric: str,
    label_length_s: Callable[[], float],
    supervision: str = "point",
) -> Objective:
    """The measure of detections in `ids`.

    Test videos with annotated instances are evaluated by mAP, however the configuration was
    selected.

    Args:
        store, ids, score_on, metric: as for `check_selection`.
        label_length_s: returns the mean length of the pseudo-labels; called if points are used.
        supervision: of the method; it determines the thresholds of some datasets.

    Raises:
        ConfigError: as `ground_truth`.
        DataError: as `check_selection`.
    """
    check_selection(store, ids, score_on, metric)
    classes = store.info.num_classes
    if metric == "map" or (score_on == "test" and _annotated(store, ids)):
        truth = ground_truth(store, ids, score_on)
        rules = protocol(store.info.name, supervision)
        return ByMap(truth=truth, num_classes=classes, protocol=rules)
    return ByPoints(
        points=held_out_points(store, ids, score_on),
        num_classes=classes,
        duration_s={i: store.duration_s(i) for i in ids},
        label_length_s=label_length_s(),
    )


def points_score(hits: float, likelihood: float, ratio: float) -> float:
    """The objective of a search by points: pure-hit mAP, times a power of the likelihood of a
    point, times `length_guard`. It is not an mAP and may be above 1.

    Args:
        hits: pure-hit mAP, a fraction.
        likelihood: mean log-likelihood of a point, nats above chance.
        ratio: see `length_guard`.

    Source: PROPOSED; measured in reports/points.
    """
    return float(hits * np.exp(LIKELIHOOD * likelihood) * length_guard(ratio))


def length_guard(ratio: float) -> float:
    """1 if lengths are within 0.5 to 2 times those of the pseudo-labels, and less outside: 0.5 at
    0.25 and at 4 times. 1 if the ratio is not known."""
    if np.isnan(ratio):
        return 1.0
    return float(min(1.0, ratio / SHORT, LONG / max(ratio, 1e-9)))


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


def objective_name(metric: str) -> str:
    """Name of the metric that trials maximise for `metric`, "map" or "points"."""
    return ByPoints.name if metric == "points" else ByMap.name


def main_figure(metrics: Iterable[str], split: str) -> str:
    """Name of the main metric of a run scored on `split`; that of mAP if there is none.

    Args:
        metrics: names of the metrics of the run, as "val/mAP_avg".
        split: "val" or "test".
    """
    known = set(metrics)
    names = [f"{split}/{name}" for name in CALLED]
    return next((name for name in names if name in known), names[0])


def called(name: str) -> str:
    """The name in texts for a metric returned by `main_figure`."""
    return CALLED[name.rpartition("/")[2]]
