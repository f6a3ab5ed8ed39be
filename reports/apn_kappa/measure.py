"""The quality of APN's pseudo-labels for values of kappa, before training and after 60 steps.

    python reports/apn_kappa/measure.py SPACE[:DATASET] ... --seeds 3 --out result.json

Seed k trains without fold k. Every kappa is evaluated with the same weights, trained with kappa 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from ptal_ray.space.space import load_space
from ptal_ray.study.single_run import one_trial
from ptal_ray.training.label_quality import label_quality
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

KAPPAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
SETTINGS = (
    "train.lr=1e-3", "train.kappa=1", "train.update_medoids=false", "train.contrast_weight=0.003",
    "budget.min_steps=60", "budget.max_steps=60",
)  # fmt: skip


def by_kappa(trial: Trial) -> dict[str, dict[str, float]]:
    """mAP (0.1:0.7) and mAP at 0.5 of the labels of the training videos, by kappa."""
    found = {}
    for kappa in KAPPAS:
        task = dataclasses.replace(trial.task, hp=dataclasses.replace(trial.task.hp, kappa=kappa))
        quality = label_quality(task, trial.learner.model, trial.batches.split)
        found[str(kappa)] = {key: quality[key] for key in ("mAP_avg", "mAP_0.50")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for text in flags.spaces:
        name, _, dataset = text.partition(":")
        space = load_space(name, list(SETTINGS), dataset=dataset or None)
        for seed in range(flags.seeds):
            trial = start(dataclasses.replace(one_trial(space, seed, ""), fold_seed=seed))
            labels = {"0": by_kappa(trial)}
            while not trial.done:
                trial.advance()
            labels["60"] = by_kappa(trial)
            rows.append({"data": space.dataset, "seed": seed, "labels": labels})
            print(text, seed, {k: round(v["mAP_avg"], 3) for k, v in labels["60"].items()})
            flags.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
