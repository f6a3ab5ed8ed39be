"""The regret of choosing configurations and decode settings with only held-out points.

Random configurations of a space are trained on each dataset. Every configuration, at each of its
report steps and with every decode setting, is a candidate. It is evaluated by mAP and by points on
the same held-out videos.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.datasets import find
from ptal_ray.errors import ConfigError, DivergedError, NoTrialFinished
from ptal_ray.methods.method import with_values
from ptal_ray.ops.proxy import Proxy, judge_proxy
from ptal_ray.process.pool import process_pool
from ptal_ray.reporting.point_selection import estimate
from ptal_ray.reporting.text import table
from ptal_ray.space.domain import Scalar
from ptal_ray.space.space import SearchSpace, load_space
from ptal_ray.storage.ownership import begins_with, check_files, read_object
from ptal_ray.storage.whole import folder_made, whole
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.decoding import decode_settings
from ptal_ray.training.label_quality import label_length_s
from ptal_ray.training.selection import ByMap, length_guard, objective_of
from ptal_ray.training.stages import start
from ptal_ray.training.trial import Trial

Row = dict[str, Any]
STAND_INS: dict[str, Callable[[Row], float]] = {
    "points score": lambda row: row["points_score"],
    "hits": lambda row: row["hit_mAP"],
    "log-likelihood": lambda row: row["point_log_likelihood"],
    "hits and length": lambda row: row["hit_mAP"] * _guard(row),
    "hits and log-likelihood": lambda row: row["points_score"] / _guard(row),
}
GOAL = 0.015  # regret in mAP
_HEAD = "# Selection by points alone\n"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One configuration to train; `number` is its index among the random ones."""

    dataset: str
    number: int
    config: TrialConfig


def _guard(row: Row) -> float:
    ratio = row.get("length_ratio")
    return length_guard(float("nan") if ratio is None else ratio)


def planned(
    spaces: Sequence[SearchSpace], datasets: Sequence[str], configurations: int, seed: int
) -> list[Run]:
    """All runs, the first configuration of every space and dataset first.

    Raises:
        DataError: a dataset is not imported.
    """
    pairs = [
        list(_runs(replace(space, dataset=dataset), configurations, seed))
        for dataset in datasets
        for space in spaces
    ]
    return [runs[k] for k in range(configurations) for runs in pairs if k < len(runs)]


def _runs(space: SearchSpace, configurations: int, seed: int) -> Iterator[Run]:
    store, selection = find(space.dataset), space.selection
    for number in range(configurations):
        params = _drawn(space, number, seed)
        config = TrialConfig(
            method=space.method, store=str(store.path), train=space.resolve_train(params),
            decode=space.decode_defaults(), decode_domains=space.decode,
            decode_settings=selection.decode_settings, cross_fit=False, seed=seed,
            report_steps=space.budget.report_steps, val_fraction=selection.val_fraction,
            fold_seed=selection.fold_seed, stages=str(store.path.parent / ".stages"),
            metric="points",
        )  # fmt: skip
        yield Run(dataset=store.info.name, number=number, config=config)


def _drawn(space: SearchSpace, number: int, seed: int) -> dict[str, Scalar]:
    """The defaults first, if they are in the space, then random configurations."""
    first = space.first_params() if number == 0 else None
    units = np.random.default_rng([seed, number]).random(len(space.train))
    drawn = zip(space.train.items(), units, strict=True)
    return first or {key: domain.sample(float(unit)) for (key, domain), unit in drawn}


def measured(run: Run) -> list[Row]:
    """The candidates of one configuration; if it diverges, those before."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    try:
        trial = start(run.config)
        for step in run.config.report_steps:
            trial.train_until(step)
            rows += _judged(run, trial)
    except DivergedError as error:
        print(f"{run.dataset}, configuration {run.number}: {error}", file=sys.stderr)
    return rows


def _judged(run: Run, trial: Trial) -> Iterator[Row]:
    task, config = trial.task, run.config
    store, ids = task.store, task.score_ids
    scores = trial.score(ids)
    length = partial(
        label_length_s, task, trial.learner.judged, trial.batches.split, trial.made_labels
    )
    by_map = objective_of(store, ids, "val", "map", length)
    by_points = objective_of(store, ids, "val", "points", length)
    grids = [stored_grid(store, id, task.hp.resample_to) for id in ids]
    first = with_values(task.method.decode_params, config.decode)
    settings = decode_settings(
        first, config.decode_domains, config.decode_settings, config.fold_seed
    )
    for index, hp in enumerate(settings):
        found = {
            s.id: task.method.decode(s, grid, store.duration_s(s.id), hp)
            for s, grid in zip(scores, grids, strict=True)
        }
        yield {
            "method": config.method, "dataset": run.dataset, "configuration": run.number,
            "step": trial.step, "setting": index, "mAP": by_map.metrics(found)[ByMap.name],
            **by_points.metrics(found),
        }  # fmt: skip


def proxies(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Proxy]]:
    """By (dataset, method), the quality of each proxy."""
    pairs = dict.fromkeys((row["dataset"], row["method"]) for row in rows)
    found = {}
    for pair in sorted(pairs):
        own = [row for row in rows if (row["dataset"], row["method"]) == pair]
        truth, group = [row["mAP"] for row in own], [row["configuration"] for row in own]
        found[pair] = {
            name: judge_proxy(truth, [value(row) for row in own], group)
            for name, value in STAND_INS.items()
        }
    return found


def report(found: Mapping[tuple[str, str], Mapping[str, Proxy]], command: str) -> str:
    """REPORT.md."""
    main, *_ = STAND_INS
    pairs = [
        [*pair, str(own[main].candidates), estimate(own[main].correlation, 1, 2),
         f"{100 * own[main].best:.1f}", f"{100 * own[main].chosen:.1f}",
         estimate(own[main].regret, 100, 1), f"{100 * own[main].spread:.1f}"]
        for pair, own in found.items()
    ]  # fmt: skip
    names = [_compared(name, [own[name] for own in found.values()]) for name in STAND_INS]
    missed = [
        f"{method} on {dataset} ({100 * own[main].regret.value:.1f})"
        for (dataset, method), own in found.items()
        if own[main].regret.value > GOAL
    ]
    goal = f"missed by {', '.join(missed)}" if missed else "met by all"
    head = ["dataset", "method", "candidates", "rank correlation", "best mAP, %",
            "mAP of the choice, %", "regret", "best above median"]  # fmt: skip
    return "\n\n".join(
        [
            _HEAD.rstrip(),
            "A candidate is a configuration at a report step with a decode setting. Regret: mAP of "
            "the best candidate minus mAP of the one that points choose, on the same held-out "
            "videos. Intervals: 95 %, bootstrap over configurations.",
            f"## By the points score\n\nGoal: at most {100 * GOAL:.1f} mAP regret; {goal}.",
            table(head, pairs),
            "## Which points score ranks best\n\nOver the pairs of dataset and method:",
            table(
                [
                    "stand-in",
                    "rank correlation, mean",
                    "least",
                    "regret, mean",
                    "most",
                    f"pairs within {100 * GOAL:.1f}",
                ],
                names,
            ),  # fmt: skip
            f"## Command\n\n```\n{command}\n```\n",
        ]
    )


def _compared(name: str, own: Sequence[Proxy]) -> list[str]:
    correlation = np.array([proxy.correlation.value for proxy in own])
    regret = np.array([proxy.regret.value for proxy in own])
    return [
        name, f"{np.nanmean(correlation):.2f}", f"{np.nanmin(correlation):.2f}",
        f"{100 * regret.mean():.1f}", f"{100 * regret.max():.1f}",
        f"{int((regret <= GOAL).sum())} of {len(own)}",
    ]  # fmt: skip


def write(rows: Sequence[Row], out: Path, command: str) -> None:
    """Write rows.parquet, result.json and REPORT.md to folder `out`.

    Raises:
        NoTrialFinished: there are no rows.
    """
    if not rows:
        raise NoTrialFinished("points: no training reached a report; see the lines above")
    found = proxies(rows)
    plain = [
        {"dataset": dataset, "method": method, "stand_ins": {k: asdict(p) for k, p in own.items()}}
        for (dataset, method), own in found.items()
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = pa.table({name: [row.get(name) for row in rows] for name in columns})
    with folder_made(out):
        with whole(out / "rows.parquet") as beside:
            pq.write_table(values, beside, compression="zstd")
        text = report(found, command)
        for name, content in (
            ("result.json", json.dumps({"pairs": plain}, indent=1)),
            ("REPORT.md", text),
        ):
            with whole(out / name) as beside:
                beside.write_text(content, encoding="utf-8")


def run_points(flags: argparse.Namespace) -> None:
    """Measure and report.

    Raises:
        ConfigError: a flag or a space is wrong, or the output folder has other files.
        DataError: a dataset is not imported, or cannot be evaluated in both ways.
        NoTrialFinished: every training diverged before its first report.
    """
    for name in ("configurations", "workers"):
        if getattr(flags, name) < 1:
            raise ConfigError(f"--{name} {getattr(flags, name)}: allowed is 1 or more")
    known = {
        "rows.parquet": lambda path: True,
        "result.json": lambda path: "pairs" in read_object(path),
        "REPORT.md": lambda path: begins_with(path, _HEAD),
    }
    check_files("--out", flags.out, known)
    spaces = [load_space(name, ["selection.metric=points"]) for name in flags.spaces]
    datasets = flags.dataset or sorted({space.dataset for space in spaces})
    runs = planned(spaces, datasets, flags.configurations, flags.seed)
    rows: list[Row] = []
    with process_pool(flags.workers) as pool:
        for done, found in enumerate(pool.map(measured, runs), 1):
            rows += found
            print(f"{done}/{len(runs)} trainings", file=sys.stderr, flush=True)
    write(rows, flags.out, _command(flags))
    print(f"{flags.out}: REPORT.md, result.json, rows.parquet")


def _command(flags: argparse.Namespace) -> str:
    chosen = " ".join(f"--dataset {name}" for name in flags.dataset)
    return (
        f"python -m ptal_ray.benchmarks points {' '.join(flags.spaces)} {chosen} "
        f"--configurations {flags.configurations} --seed {flags.seed} --out {flags.out}"
    )
