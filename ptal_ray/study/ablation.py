"""Trains variants of one method with the same seeds, videos and budget, and makes their table."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ptal_ray.data.datasets import note
from ptal_ray.data.drawn_points import drawn_points
from ptal_ray.data.store import FeatureStore
from ptal_ray.errors import ConfigError, DivergedError, PtalError
from ptal_ray.methods.method import TrainParams, load, with_values
from ptal_ray.process.pool import process_pool
from ptal_ray.space.space import load_space
from ptal_ray.storage.ownership import begins_with, check_files, check_writable, read_object
from ptal_ray.storage.whole import folder_made, write_whole
from ptal_ray.study.events import dumps
from ptal_ray.study.feasibility import demand, run_problems
from ptal_ray.study.provenance import provenance
from ptal_ray.study.single_run import one_trial
from ptal_ray.training.config import TrialConfig
from ptal_ray.training.label_quality import label_quality
from ptal_ray.training.selection import main_figure
from ptal_ray.training.stages import start
from ptal_ray.training.supervision import annotated_ids, fold

_HEAD = "# Variants of "  # of REPORT.md
LABEL_COLUMNS = ("mAP_avg", "mAP_0.50", "class_accuracy", "mean_tiou", "positive_accuracy")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of the table: a name and `SECTION.KEY=VALUE` settings."""

    name: str
    settings: tuple[str, ...]


def parse_variant(text: str) -> Variant:
    """'name: SECTION.KEY=VALUE ...' as a variant.

    Raises:
        ConfigError: there is no name, a quote is open, or a setting is not a pair.
    """
    name, colon, rest = text.partition(":")
    try:
        settings = tuple(shlex.split(rest))
    except ValueError as error:  # an open quote
        raise ConfigError(f"--variant {text!r}: {error}; close the quote") from error
    if not (name.strip() and colon) or not all("=" in s for s in settings):
        raise ConfigError(f"--variant {text!r}: write 'NAME: SECTION.KEY=VALUE ...', or 'NAME:'")
    return Variant(name=name.strip(), settings=settings)


def ablate(args: argparse.Namespace) -> str:
    """Run all variants in the flags of `python -m ptal_ray.ablate` and return the report.

    Raises:
        ConfigError: a flag or a YAML value is wrong.
        DataError: a run is not possible with the data.
    """
    if args.seeds < 1 or args.jobs < 1:
        raise ConfigError("--seeds and --jobs: allowed is 1 or more")
    variants = [parse_variant(v) for v in args.variant]
    names = Counter(v.name for v in variants)
    if twice := [name for name, number in names.items() if number > 1]:
        raise ConfigError(f"--variant {twice[0]!r}: duplicate name; names must be unique")
    planned = _planned(args, variants)
    configs = [c for every in planned.values() for c in every]
    check_files("--out", args.out, {"result.json": _is_result, "REPORT.md": _is_report})
    check_writable("--out", args.out, folder=True)
    _check(planned)
    text = ""
    for rows in _run_all(planned, args.jobs):
        text = report(args, variants, rows, configs)
        _write(args.out, rows, text)
    return text


def _planned(args: argparse.Namespace, variants: Sequence[Variant]) -> dict[str, list[TrialConfig]]:
    """The runs of each row. A row is a variant with one of the kinds of points in the flags."""
    planned = {}
    kinds = [drawn_points(text).text for text in args.points]
    for v in variants:
        space = load_space(args.space, [*args.set, *v.settings], dataset=args.dataset)
        for kind in dict.fromkeys(kinds or [""]):
            planned[f"{v.name}, {kind}" if kind else v.name] = [
                dataclasses.replace(one_trial(space, seed, kind), fold_seed=seed)
                for seed in range(args.seeds)
            ]
    _check_data({name: configs[0] for name, configs in planned.items()})
    return planned


def _check_data(firsts: Mapping[str, TrialConfig]) -> None:
    """Check that all rows, given by their first runs, are of the same method and data.

    Raises:
        ConfigError: a variant changes one of them.
    """
    (first, base), *others = firsts.items()
    for name, config in others:
        if (config.method, config.store) != (base.method, base.store):
            raise ConfigError(
                f"--variant {name!r}: {config.method} on {Path(config.store).name}, but {first!r} "
                f"is {base.method} on {Path(base.store).name}; variants must share method and "
                "dataset, so run one ablation for each"
            )


def run(config: TrialConfig) -> dict[str, Any]:
    """Train one run to its end and return its metrics, with those of its pseudo-labels."""
    torch.set_num_threads(1)
    try:
        trial = start(config)  # trains earlier stages
        report = trial.advance()
        while not trial.done:
            report = trial.advance()
    except DivergedError as error:
        return {"diverged": str(error)}
    metrics = dict(report.metrics)
    if trial.task.method.label_segments is not None and config.metric == "map":
        found = label_quality(
            trial.task, trial.learner.model, trial.batches.split, trial.made_labels
        )
        metrics |= {f"labels/{name}": value for name, value in found.items()}
    return {"metrics": metrics, "decode": report.decode, "seconds": report.seconds}


def table(rows: dict[str, list[dict[str, Any]]], columns: Sequence[str]) -> str:
    """A table of mean ± standard deviation over seeds in %, and paired differences between rows."""
    lines = [
        f"| variant | runs | {' | '.join(columns)} | {columns[0]} against the row above |",
        "|---" * (len(columns) + 3) + "|",
    ]
    above: list[dict[str, Any]] | None = None
    for name, runs in rows.items():
        done = [r["metrics"] for r in runs if "metrics" in r]
        cells = [_spread([m[c] for m in done if c in m]) for c in columns]
        pairs = [
            new["metrics"][columns[0]] - old["metrics"][columns[0]]
            for new, old in zip(runs, above or (), strict=False)
            if columns[0] in new.get("metrics", ()) and columns[0] in old.get("metrics", ())
        ]
        lines.append(
            f"| {name} | {len(done)} | " + " | ".join([*cells, _spread(pairs, "+")]) + " |"
        )
        above = runs
    return "\n".join(lines)


def _spread(values: list[float], sign: str = "") -> str:
    if not values:
        return ""
    mean = f"{100 * statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _params(configs: Sequence[TrialConfig]) -> list[TrainParams]:
    """The train parameters of each run, all of one method."""
    kind = load(configs[0].method).train_params
    return [with_values(kind, c.train) for c in configs]


def _labelled(configs: Sequence[TrialConfig]) -> str:
    """The number of annotated videos per fraction and fold; empty for point supervision."""
    first, method = configs[0], load(configs[0].method)
    if method.supervision == "point":
        return ""
    store = FeatureStore.open(first.store)
    pairs = zip(_params(configs), configs, strict=True)
    asked = {(hp.labelled(), c.fold_seed): (hp, c) for hp, c in pairs}
    found = []
    for hp, config in asked.values():
        fit, _ = fold(store, hp, config.val_fraction, config.fold_seed)
        found.append(f"{len(set(annotated_ids(store, hp)) & set(fit))} of {len(fit)}")
    return "annotated: " + ", ".join(dict.fromkeys(found)) + " training videos"


def report(
    args: argparse.Namespace,
    variants: Sequence[Variant],
    rows: dict[str, list[dict[str, Any]]],
    configs: Sequence[TrialConfig],
) -> str:
    """REPORT.md of an ablation."""
    config = configs[0]
    info, origin = FeatureStore.open(config.store).info, provenance()
    metrics: dict[str, float] = next(
        (r["metrics"] for runs in rows.values() for r in runs if "metrics" in r), {}
    )
    known, *rest = info.note, note(info.name), *sorted({hp.remark() for hp in _params(configs)})
    notes = [known, *(text for text in rest if not known.startswith(text)), _labelled(configs)]
    columns = [main_figure(metrics, "val"), *(k for k in metrics if k.startswith("val/mAP_0"))]
    columns += [f"labels/{k}" for k in LABEL_COLUMNS if f"labels/{k}" in metrics]
    what = [
        f"- {v.name}: " + (f"`{' '.join(v.settings)}`" if v.settings else "nothing changed")
        for v in variants
    ]
    failed = [
        f"- {name}, diverged: {r['diverged']}"
        for name, runs in rows.items()
        for r in runs
        if "diverged" in r
    ]
    hardware = origin["hardware"]
    versions = ", ".join(f"{k} {v}" for k, v in origin["versions"].items() if v)
    parts = [
        f"{_HEAD}{config.method} on {info.name} ({info.features} features)",
        "; ".join([f"**features: {info.features}**", *filter(None, notes)]) + ".",
        f"{_steps(configs)} steps a run; seed k trains without fold k of the training "
        "split and is judged on it. All in %, mean ± standard deviation over runs; the last "
        "column pairs runs of one seed. The test split was not read.",
        table(rows, columns),
        "\n".join(what + failed),
        f"```\npython -m ptal_ray.ablate {shlex.join(args.argv)}\n```",
        f"{hardware['cpus']} CPU cores ({hardware['cpu']}), {hardware['memory_gib']} GiB; "
        f"{versions}; commit {origin['git_commit'][:12]}; {time.strftime('%Y-%m-%d')}. "
        "`result.json` holds every run.",
    ]
    return "\n\n".join(parts) + "\n"


def _steps(configs: Sequence[TrialConfig]) -> str:
    """The numbers of steps of the runs, in the order of the variants."""
    return " or ".join(dict.fromkeys(str(config.report_steps[-1]) for config in configs))


def _check(planned: dict[str, list[TrialConfig]]) -> None:
    """Check all runs before the first one starts.

    Raises:
        ConfigError, DataError: a run is not possible.
    """
    opened = cache(FeatureStore.open)
    found: dict[str, PtalError] = {}
    for name, configs in planned.items():
        for seed, config in enumerate(configs):
            for error in run_problems(config, opened(config.store)):
                said = type(error)(f"variant {name!r}, seed {seed}: {error}")
                found.setdefault(str(error), said)
    demand(list(found.values()))


def _write(out: Path, rows: dict[str, list[dict[str, Any]]], text: str) -> None:
    with folder_made(out):
        for name, content in (("result.json", dumps(rows, indent=0)), ("REPORT.md", text)):
            write_whole(out / name, content)


def _is_result(path: Path) -> bool:
    """Whether a file holds lists of runs by variant."""
    rows = read_object(path)
    return bool(rows) and all(
        isinstance(runs, list) and all(isinstance(run, dict) for run in runs)
        and any(key in run for run in runs for key in ("metrics", "diverged"))
        for runs in rows.values()
    )  # fmt: skip


def _is_report(path: Path) -> bool:
    return begins_with(path, _HEAD)


def _run_all(
    planned: dict[str, list[TrialConfig]], jobs: int
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Run all, `jobs` at a time, and print a line per run; yields the rows so far, by variant."""
    began = time.monotonic()
    with process_pool(jobs) as pool:
        waiting = {
            name: [pool.submit(run, c) for c in configs] for name, configs in planned.items()
        }
        rows: dict[str, list[dict[str, Any]]] = {}
        for name, futures in waiting.items():
            rows[name] = []
            for seed, future in enumerate(futures):
                rows[name].append(future.result())
                metrics = rows[name][-1].get("metrics", {})
                value = metrics.get(main_figure(metrics, "val"), float("nan"))
                spent = time.monotonic() - began
                print(
                    f"{spent:7.0f} s  {name}, seed {seed}: {value:.4f}", file=sys.stderr, flush=True
                )
            yield rows
