"""What is lost by choosing configurations and decode settings by held-out points alone.

    python -m ptal_ray.benchmarks points apn_watch lacp_watch --dataset watch hapt --out DIR

Random configurations of each space are trained on each dataset. Every configuration with every
decode setting is judged on the same held-out videos twice: by mAP, and by their points alone.
Writes rows.parquet, result.json and REPORT.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.datasets import find, protocol
from ptal_ray.errors import DivergedError
from ptal_ray.ops.metrics import detection_map
from ptal_ray.ops.point_metrics import mean_lengths_s, point_log_likelihood, pure_hits
from ptal_ray.policy.random_searcher import RandomSearcher
from ptal_ray.process.pool import process_pool
from ptal_ray.space.space import SearchSpace, load_space
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import decode_settings
from ptal_ray.training.label_quality import label_instances
from ptal_ray.training.selection import ground_truth, map_metrics, objective
from ptal_ray.training.trial import Trial

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One configuration to train.

    Args:
        space, dataset: names; `number` is the configuration, 0 the defaults.
        config: what is trained; its decode settings are tried at the end.
    """

    space: str
    dataset: str
    number: int
    config: TrialConfig


def runs(space: SearchSpace, configurations: int, settings: int, seed: int) -> list[Run]:
    searcher = RandomSearcher(space, seed, configurations, stop_early=False)
    store = find(space.dataset)
    found = []
    for number in range(configurations):
        params = searcher.suggest(number)
        if params is None:
            break
        config = TrialConfig(
            method=space.method,
            store=str(store.path),
            train=space.resolve_train(params),
            decode=space.decode_defaults(),
            decode_domains=space.decode,
            decode_settings=settings,
            cross_fit=False,
            seed=seed,
            report_steps=space.budget.report_steps,
            val_fraction=space.selection.val_fraction,
            fold_seed=space.selection.fold_seed,
            stages=str(store.path.parent / ".stages"),
        )
        found.append(Run(space=space.name, dataset=store.info.name, number=number, config=config))
    return found


def measured(run: Run) -> list[Row]:
    torch.set_num_threads(1)
    trial, rows = Trial(run.config), []
    try:
        for step in run.config.report_steps:
            trial.train_until(step)
            rows += judged(run, trial)
    except DivergedError:
        pass
    return rows


def judged(run: Run, trial: Trial) -> list[Row]:
    began = time.perf_counter()
    scores = trial.score(trial.score_ids)
    if not all(
        np.isfinite(a).all() for s in scores for a in s.arrays.values() if a.dtype.kind == "f"
    ):
        return []
    store, classes = trial.store, trial.store.info.num_classes
    ids = trial.score_ids
    points = {i: store.points(i) for i in ids}
    duration = {i: store.duration_s(i) for i in ids}
    truth = ground_truth(store, ids, "val")
    rules = protocol(store.info.name)
    numbers = np.bincount(np.concatenate([p.label for p in points.values()]), minlength=classes)
    labels = label_instances(trial.method, trial.judged, trial.split, trial.hp, trial.made_labels)
    label_length = mean_lengths_s(labels, np.full(classes, 10**9))
    real_length = mean_lengths_s(truth, np.full(classes, 10**9))
    start = trial.method.decode_params(**run.config.decode)
    settings = decode_settings(
        start, run.config.decode_domains, run.config.decode_settings, run.config.fold_seed
    )
    grids = [stored_grid(store, i, trial.hp.resample_to) for i in ids]
    rows = []
    for index, hp in enumerate(settings):
        found = {
            s.id: trial.method.decode(s, grid, duration[s.id], hp)
            for s, grid in zip(scores, grids, strict=True)
        }
        result = detection_map(truth, found, classes, rules.tiou)
        hits = pure_hits(points, found, classes)
        right = {i: own.take(hits.correct[i]) for i, own in found.items()}
        rows.append(
            {
                "space": run.space,
                "method": run.config.method,
                "dataset": run.dataset,
                "configuration": run.number,
                "step": trial.step,
                "setting": index,
                "mAP": objective(map_metrics(result.per_tiou, rules)),
                "hits": hits.per_class.tolist(),
                "likelihood": point_log_likelihood(points, found, classes, duration).tolist(),
                "length_top": mean_lengths_s(found, numbers).tolist(),
                "length_all": mean_lengths_s(found, np.full(classes, 10**9)).tolist(),
                "length_right": mean_lengths_s(right, np.full(classes, 10**9)).tolist(),
                "label_length": label_length.tolist(),
                "real_length": real_length.tolist(),
                "points": numbers.tolist(),
                "detections": sum(map(len, found.values())),
            }
        )
    print(
        f"{time.strftime('%H:%M:%S')} {run.dataset} {run.config.method} {run.number} {trial.step}: {time.perf_counter() - began:.1f} s, best {max(r['mAP'] for r in rows):.3f}",
        file=sys.stderr,
        flush=True,
    )
    return rows


if __name__ == "__main__":
    import json

    out = Path(sys.argv[1])
    configurations = int(sys.argv[2])
    settings = int(sys.argv[3])
    workers = int(sys.argv[4])
    fold = int(sys.argv[5])
    planned = []
    for number in range(configurations):
        for dataset in ("watch", "gtea_scores", "salads50_scores", "hapt"):
            for name in sys.argv[6:]:
                space = load_space(name, [f"selection.fold_seed={fold}"], dataset=dataset)
                planned += runs(space, configurations, settings, 0)[number : number + 1]
    with process_pool(workers) as pool, out.open("a") as file:
        futures = [pool.submit(measured, run) for run in planned]
        for future in futures:
            for row in future.result():
                file.write(json.dumps(row) + "\n")
            file.flush()
