"""Reports of finished studies.

    python -m ptal_ray.report studies/apn_watch-20261121-120000
    python -m ptal_ray.report studies/*                          (and a table that compares them)

Writes reports/<study>_<hardware>_<date>/ with REPORT.md, result.json, trials.parquet, best.yaml
(which `python -m ptal_ray.train` reads) and pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ptal_ray import plots
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Segments
from ptal_ray.distributed.importance import MIN_TRIALS, param_importance
from ptal_ray.errors import DataError, PtalError
from ptal_ray.tracking import StudyView, Summary, best_yaml, dumps, summarise

ARMS = {"best": "best found", "default": "defaults"}


def write_report(study_dir: Path, reports_root: Path) -> Path:
    """Writes the report of a study, in the place of an earlier one of the same name.

    Args:
        study_dir: the study directory.
        reports_root: folder of all reports.

    Returns:
        The folder of the report.

    Raises:
        DataError: the study directory has no readable events.
    """
    view = StudyView.read(study_dir)
    if not view.study:
        raise DataError(f"{study_dir}: its log has no study; was the search started?")
    folder = reports_root / report_name(view)
    work = reports_root / f".{folder.name}.{os.getpid()}"
    reports_root.mkdir(parents=True, exist_ok=True)
    work.mkdir()
    try:
        _write(view, study_dir, work)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def report_name(view: StudyView) -> str:
    """<study>_<hardware>_<date>, from what the study logged."""
    machine = view.study["hardware"]
    gpus = machine["gpus"]
    kind = f"{len(gpus)}x{gpus[0]}" if gpus else f"{machine['cpus']}cpu"
    date = time.strftime("%Y-%m-%d", time.gmtime(view.study["time"]))
    return f"{view.study['study']}_{re.sub(r'[^A-Za-z0-9]+', '-', kind)}_{date}"


def _write(view: StudyView, study_dir: Path, folder: Path) -> None:
    shares = param_importance(view)
    thresholds = {arm: by_threshold(view, arm) for arm in view.arms("test")}
    pictures = _pictures(view, study_dir, folder, shares, thresholds)
    (folder / "REPORT.md").write_text(markdown(view, shares, thresholds, pictures))
    (folder / "result.json").write_text(dumps(result(view, shares), indent=1) + "\n")
    if text := best_yaml(view):
        head = "# The best configuration of this study. Run: python -m ptal_ray.train best.yaml\n"
        (folder / "best.yaml").write_text(head + text)
    pq.write_table(trial_table(view), folder / "trials.parquet")


def by_threshold(view: StudyView, arm: str) -> dict[float, Summary]:
    """Test mAP of an arm by threshold, over its seeds."""
    found = summarise(view.runs("test", arm))
    pattern = re.compile(r"test/mAP_(\d\.\d+)$")
    return {float(m[1]): s for name, s in found.items() if (m := pattern.match(name))}


def result(view: StudyView, shares: dict[str, float]) -> dict[str, Any]:
    """Everything in the report, for programs; mAP as fractions."""
    tests = {
        arm: {name: asdict(s) for name, s in summarise(view.runs("test", arm)).items()}
        for arm in view.arms("test")
    }
    best = view.best_config()
    return {
        "study": view.study,
        "end": view.end,
        "trials": view.counts,
        "best": {"train": best[0], "decode": best[1]} if best else None,
        "test": tests,
        "runs": [asdict(run) for run in view.finals],
        "importance": shares,
    }


def trial_table(view: StudyView) -> pa.Table:
    """One row a report of a trial: number, state, step, objective, parameters and metrics."""
    rows = []
    for trial in view.trials:
        for report in trial.reports:
            rows.append(
                {
                    "trial": trial.number, "state": trial.state, "step": report.step,
                    "objective": report.objective, "seconds": report.seconds,
                    "to_first_step_s": report.to_first_step_s,
                }
                | {f"train.{k}": v for k, v in trial.params.items()}
                | {f"decode.{k}": v for k, v in report.decode.items()}
                | report.metrics
            )  # fmt: skip
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in columns})


def markdown(
    view: StudyView,
    shares: dict[str, float],
    thresholds: dict[str, dict[float, Summary]],
    pictures: Sequence[str],
) -> str:
    """REPORT.md."""
    study = view.study
    parts = [
        f"# {study['study']}",
        _setting(view),
        _outcome(view, thresholds),
        _configuration(view),
        _search(view, shares, pictures),
        _provenance(view),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def data_label(view: StudyView) -> str:
    """What every caption says of the data: nothing more for real features."""
    features = view.study["features"]
    if features.startswith("simulated"):
        return f" (simulated features: {features})"
    return "" if features == "real" else f" ({features} features)"


def _setting(view: StudyView) -> str:
    study = view.study
    counts = ", ".join(f"{n} {state}" for state, n in view.counts.items() if n)
    lines = [
        f"Method **{study['method']}** on **{study['dataset']}**, features: {study['features']}.",
        study["note"],
        f"Searcher {study['searcher']}, scheduler {study['scheduler']}, seed {study['seed']}; "
        f"trials: {counts or 'none'}.",
        "Configurations were selected on a fold of the training split; the test split was read "
        "once, after the search, by the runs below.",
    ]
    if view.end and view.end["state"] != "done":
        lines.append(f"The study is not finished: {view.end['state']}.")
    return "\n".join(line for line in lines if line)


def _outcome(view: StudyView, thresholds: dict[str, dict[float, Summary]]) -> str:
    if not thresholds:
        return "## Test\n\nNo final run has finished."
    grid = sorted({t for values in thresholds.values() for t in values})
    lines = [
        f"## Test{data_label(view)}",
        "",
        f"mAP in %, mean ± standard deviation over seeds{data_label(view)}.",
        "",
        "| configuration | seeds | " + " | ".join(f"@{t:g}" for t in grid) + " | averages |",
        "|---|---|" + "---|" * (len(grid) + 1),
    ]
    for arm, values in thresholds.items():
        found = summarise(view.runs("test", arm))
        prefix = "test/mAP_avg_"
        averages = ", ".join(
            f"{name.removeprefix(prefix)}: {_percent(s)}"
            for name, s in found.items()
            if name.startswith(prefix)
        )
        cells = " | ".join(_percent(values[t]) if t in values else "" for t in grid)
        seeds = len(view.runs("test", arm))
        lines.append(f"| {ARMS.get(arm, arm)} | {seeds} | {cells} | {averages} |")
    lines += ["", f"Per seed, mAP average in %{data_label(view)}:", ""]
    for arm in thresholds:
        runs = [
            f"seed {r.seed}: {100 * r.metrics['test/mAP_avg']:.2f}" if r.metrics else r.message
            for r in view.runs("test", arm)
        ]
        lines.append(f"- {ARMS.get(arm, arm)}: {'; '.join(runs)}")
    lines += _reselection(view)
    return "\n".join([*lines, "", "![mAP by threshold](per_threshold.png)"])


def _reselection(view: StudyView) -> list[str]:
    arms = view.arms("reselect")
    if not arms:
        return []
    lines = ["", f"The best trials again with new seeds, on the selection fold{data_label(view)}:"]
    for arm in arms:
        found = summarise(view.runs("reselect", arm)).get("val/mAP_avg")
        lines.append(f"- {arm}: {_percent(found) if found else 'diverged'}")
    return lines


def _configuration(view: StudyView) -> str:
    best = view.best_config()
    if best is None:
        return ""
    lines = ["## Configuration", "", "| parameter | best found | default |", "|---|---|---|"]
    defaults = view.study["defaults"]
    for section, found in (("train", best[0]), ("decode", best[1])):
        searched = view.study["space"].get(section, {})
        for name, value in found.items():
            default = defaults[section].get(name)
            if isinstance(searched.get(name), dict) or value != default:
                lines.append(f"| {section}.{name} | {_value(value)} | {_value(default)} |")
    lines += ["", "Everything else as in `best.yaml`: `python -m ptal_ray.train best.yaml`."]
    return "\n".join(lines)


def _search(view: StudyView, shares: dict[str, float], pictures: Sequence[str]) -> str:
    lines = [f"## Search{data_label(view)}", "", "![history](optimisation_history.png)", ""]
    if shares:
        lines += [
            "Share of the variance at the first report step that a parameter explains (fANOVA):",
            "",
            "![importance](importance.png)",
        ]
    else:
        reported = sum(bool(t.reports) for t in view.trials)
        lines.append(
            f"Importance is left out: {reported} trials reported, {MIN_TRIALS} that differ are "
            "needed."
        )
    if "timeline" in pictures:
        lines += ["", "![timeline](timeline.png)"]
    failed = [t for t in view.trials if t.state == "failed"]
    lines += [f"- trial {t.number} failed: {t.message}" for t in failed]
    return "\n".join(lines)


def _provenance(view: StudyView) -> str:
    study = view.study
    machine = study["hardware"]
    gpus = ", ".join(machine["gpus"]) or "none"
    seconds = (view.end["time"] if view.end else view.study["time"]) - (view.started or 0)
    return "\n".join(
        [
            "## Provenance",
            "",
            f"- machine: {machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, "
            f"GPUs: {gpus}",
            f"- versions: {', '.join(f'{k} {v}' for k, v in study['versions'].items() if v)}",
            f"- commit: {study['git_commit'] or 'not from a checkout'}",
            f"- data: {study['dataset']}, {study['features']}, content {study['data_hash'][:16]}",
            f"- wall time: {seconds:.0f} s; all values in `result.json` and `trials.parquet`",
        ]
    )


def _pictures(
    view: StudyView,
    study_dir: Path,
    folder: Path,
    shares: dict[str, float],
    thresholds: dict[str, dict[float, Summary]],
) -> list[str]:
    label = data_label(view)
    made = {"optimisation_history": plots.optimisation_history(view, label)}
    if shares:
        made["importance"] = plots.importance(shares, label)
    if thresholds:
        named = {ARMS.get(arm, arm): values for arm, values in thresholds.items()}
        made["per_threshold"] = plots.per_threshold(named, label)
    if (shown := _timeline(view, study_dir, label)) is not None:
        made["timeline"] = shown
    for name, figure in made.items():
        plots.save(figure, folder, name)
    return list(made)


def _timeline(view: StudyView, study_dir: Path, label: str) -> Any:
    """The test video of median length with detections of the winner's first seed, or None."""
    runs = [r for r in view.runs("test", "best") if r.detections]
    store_path = json.loads((study_dir / "study.json").read_text())["store"]
    if not runs or not Path(store_path).exists():
        return None
    store = FeatureStore.open(store_path)
    results = json.loads((study_dir / runs[0].detections).read_text())["results"]
    videos = sorted((v for v in results if len(store.annotations(v))), key=store.duration_s)
    if not videos:
        return None
    video = videos[len(videos) // 2]
    index = {name: c for c, name in enumerate(store.info.classes)}
    items = sorted(results[video], key=lambda item: -item["score"])
    found = Segments(
        start_s=np.array([i["segment"][0] for i in items]),
        end_s=np.array([i["segment"][1] for i in items]),
        label=np.array([index[i["label"]] for i in items], np.int64),
        score=np.array([i["score"] for i in items]),
    )
    truth = store.annotations(video)
    return plots.timeline(truth, found, store.info.classes, video, store.duration_s(video), label)


def leaderboard(views: Sequence[StudyView]) -> list[dict[str, Any]]:
    """A row a study with its test mAP, best first; studies without a test run come last."""
    rows = []
    for view in views:
        found = summarise(view.runs("test", "best")).get("test/mAP_avg")
        rows.append(
            {
                "study": view.study["study"], "method": view.study["method"],
                "dataset": view.study["dataset"], "features": view.study["features"],
                "trials": len(view.trials), "seeds": len(found.values) if found else 0,
                "mAP": found.mean if found else None, "sd": found.sd if found else None,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda r: (r["dataset"], -(r["mAP"] if r["mAP"] is not None else -1)))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| dataset | features | method | study | trials | seeds | test mAP, % |",
        "|---" * 7 + "|",
    ]
    for r in rows:
        spread = f" ± {100 * r['sd']:.2f}" if r["sd"] is not None else ""
        value = f"{100 * r['mAP']:.2f}{spread}" if r["mAP"] is not None else "no test run"
        lines.append(
            f"| {r['dataset']} | {r['features']} | {r['method']} | {r['study']} | {r['trials']} "
            f"| {r['seeds']} | {value} |"
        )
    return "\n".join(lines)


def _percent(summary: Summary) -> str:
    spread = f" ± {100 * summary.sd:.2f}" if summary.sd is not None else ""
    return f"{100 * summary.mean:.2f}{spread}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ptal_ray.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("studies", nargs="+", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    args = parser.parse_args(argv)
    try:
        folders = [write_report(study, args.reports) for study in args.studies]
        rows = leaderboard([StudyView.read(study) for study in args.studies])
    except PtalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(dumps({"reports": [str(f) for f in folders], "leaderboard": rows}))
    else:
        print("\n".join(f"report {folder}" for folder in folders))
        print(_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
