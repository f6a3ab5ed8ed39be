"""Transitions (sit_to_lie, ...) and long actions of hapt: what a model finds, and APN's labels.

    python -m ptal_ray.train apn_hapt --seed 0 --out RUN
    python -m ptal_ray.predict RUN --features SIGNALS --out RUN/all.json
    python reports/apn_ladder/hapt_transitions.py apn_hapt RUN --out result.json

An instance counts as found if one of the best-scored detections of its class in its video, as many
as the class has instances there, has tIoU 0.5 or more with it. Training videos without fold 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np

from ptal_ray.data.store import FeatureStore
from ptal_ray.space.space import load_space
from ptal_ray.study.single_run import one_trial
from ptal_ray.training.label_quality import label_instances
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

KAPPAS = (1.0, 2.0, 3.0, 4.0)
Rows = dict[str, list[tuple[float, float, float]]]  # kind -> (tIoU, length, action), seconds


def instances(
    store: FeatureStore, ids: tuple[str, ...]
) -> list[tuple[str, str, str, float, float]]:
    """(video, kind, class, start, end) of every annotated instance."""
    found = []
    for id in ids:
        own = store.annotations(id)
        for start_s, end_s, label in zip(own.start_s, own.end_s, own.label, strict=True):
            name = store.info.classes[label]
            kind = "transitions" if "_to_" in name else "long actions"
            found.append((id, kind, name, float(start_s), float(end_s)))
    return found


def best(starts: np.ndarray, ends: np.ndarray, start_s: float, end_s: float) -> tuple[float, float]:
    """tIoU and length of the segment that overlaps an instance most."""
    if not len(starts):
        return 0.0, 0.0
    inside = np.maximum(np.minimum(ends, end_s) - np.maximum(starts, start_s), 0)
    tiou = inside / (np.maximum(ends, end_s) - np.minimum(starts, start_s))
    return float(tiou.max()), float((ends - starts)[tiou.argmax()])


def summary(rows: Rows) -> dict[str, dict[str, float]]:
    """Share with tIoU 0.5 or more, and median lengths in seconds, by kind."""
    return {
        kind: {
            "instances": len(own),
            "tIoU >= 0.5, %": round(100 * statistics.mean(t >= 0.5 for t, _, _ in own), 1),
            "median length": round(statistics.median(length for _, length, _ in own), 2),
            "median action": round(statistics.median(action for _, _, action in own), 2),
        }
        for kind, own in sorted(rows.items())
    }


def found_in(trial: Trial, detections: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """Of the training videos; the length is that of the best-scored detections."""
    rows: Rows = {}
    truth = instances(trial.batches.split.store, trial.batches.split.ids)
    for id, kind, name, start_s, end_s in truth:
        many = sum(other[:3] == (id, kind, name) for other in truth)
        own = sorted((d for d in detections[id] if d["label"] == name), key=lambda d: -d["score"])
        segments = np.array([d["segment"] for d in own[:many]]).reshape(-1, 2)
        tiou, _ = best(segments[:, 0], segments[:, 1], start_s, end_s)
        length = float(np.median(segments[:, 1] - segments[:, 0])) if len(segments) else 0.0
        rows.setdefault(kind, []).append((tiou, length, end_s - start_s))
    return summary(rows)


def labels(trial: Trial, kappa: float) -> dict[str, dict[str, float]]:
    """Of the pseudo-labels that the trained weights give with a kappa."""
    split, rows = trial.batches.split, Rows()
    task = dataclasses.replace(trial.task, hp=dataclasses.replace(trial.task.hp, kappa=kappa))
    made = label_instances(task, trial.learner.model, split)
    names = split.store.info.classes
    for id, kind, name, start_s, end_s in instances(split.store, split.ids):
        own = made[id].label == names.index(name)
        tiou, length = best(made[id].start_s[own], made[id].end_s[own], start_s, end_s)
        rows.setdefault(kind, []).append((tiou, length, end_s - start_s))
    return summary(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    trial = start(one_trial(load_space(flags.space, []), 0, ""))
    detections = json.loads((flags.run / "all.json").read_text("utf-8"))["results"]
    result = {"detections": found_in(trial, detections)}
    if trial.task.method.name == "apn":
        trial.load(flags.run / "checkpoint.pt")
        result |= {f"labels, kappa {kappa:g}": labels(trial, kappa) for kappa in KAPPAS}
    flags.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
