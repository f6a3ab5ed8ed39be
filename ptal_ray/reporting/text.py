"""REPORT.md of a study, and the table that compares studies."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ptal_ray.reporting.early_stopping import early_stopping_text
from ptal_ray.reporting.origin import as_text, changed, origin, seconds_of, seeds_of
from ptal_ray.reporting.setting import setting
from ptal_ray.study.captions import arm_label, of_videos, with_trial
from ptal_ray.study.conclusion import objective_unit, tested_difference
from ptal_ray.study.event_types import FinalReport, Restart, StudyEnd, StudyStart
from ptal_ray.study.paper_compat import on_test, remark
from ptal_ray.study.view import StudyView, Summary, summarise
from ptal_ray.training.selection import called, main_figure

PICTURES = {
    "per_threshold": "mAP by threshold",
    "optimisation_history": "optimisation history",
    "importance": "hyperparameter importance",
    "timeline": "timeline",
}
_THRESHOLD = re.compile(r"\w+/mAP_(\d\.\d+)$")
_ONLY_POINTS = (
    "**The test split has no annotated segment. Its figures are pure-hit mAP of its points, not "
    "mAP: they do not measure the accuracy of starts and ends.**"
)
_AVERAGE = re.compile(r"\w+/mAP_avg_(.+)$")


def finished(view: StudyView, role: str, arm: str) -> tuple[FinalReport, ...]:
    """The final runs of an arm that did not diverge."""
    return tuple(run for run in view.runs(role, arm) if run.metrics)


def by_threshold(view: StudyView, arm: str) -> dict[float, Summary]:
    """Test mAP of an arm by threshold, over its seeds."""
    found = summarise(finished(view, "test", arm))
    return {float(m[1]): s for name, s in found.items() if (m := _THRESHOLD.match(name))}


def run_figure(view: StudyView, role: str) -> str:
    """Name of the metric that stands for the final runs of a role, see `main_figure`."""
    names = [name for run in view.finals if run.role == role for name in run.metrics]
    return main_figure(names, "test" if role == "test" else "val")


def data_label(view: StudyView) -> str:
    """What every caption says of the data: nothing for real features with points."""
    features = view.study.features
    parts = [view.study.external]
    if features.startswith("simulated"):
        parts.append(f"simulated features: {features}")
    elif features != "real":
        parts.append(f"{features} features")
    if known := view.study.annotated:
        parts.append(f"{len(known['final'])} videos annotated")
    parts.insert(0, remark(view))
    said = "; ".join(filter(None, reversed(parts)))
    return f" ({said})" if said else ""


def markdown(
    view: StudyView,
    shares: Mapping[str, float],
    shown: Mapping[str, str],
    missing: Mapping[str, str],
    commands: Sequence[str],
    bounds: str = "",
    more: Sequence[str] = (),
    untested: str = "",
) -> str:
    """REPORT.md.

    Args:
        view: the study.
        shares: importance by parameter.
        shown: caption by name of each picture that was made.
        missing: why each other picture was not made.
        commands: that repeat the study and its best run.
        bounds: the interval of the difference of the test runs, see `Benchmark.bounds`.
        more: sections after that on the search.
        untested: the section in place of that on the test runs, for data without a test split.
    """
    pictures = {name: _picture(name, shown, missing) for name in PICTURES}
    parts = [
        f"# {view.study.study}",
        setting(view),
        untested or _outcome(view, pictures["per_threshold"], bounds),
        _configuration(view),
        _search(view, shares, pictures),
        *more,
        _incidents(view),
        f"## Timeline\n\n{pictures['timeline']}",
        "## Commands\n\n```\n" + "\n".join(commands) + "\n```",
        _provenance(view),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _picture(name: str, shown: Mapping[str, str], missing: Mapping[str, str]) -> str:
    if name in shown:
        return f"![{PICTURES[name]}]({name}.png)\n\n{shown[name]}"
    return f"No {PICTURES[name]}: {missing[name]}."


def _outcome(view: StudyView, picture: str, bounds: str) -> str:
    arms = view.arms("test")
    title = f"## Test{data_label(view)}"
    if not arms:
        return f"{title}\n\nNo final run has finished."
    rows = {arm: _named(summarise(finished(view, "test", arm))) for arm in arms}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    body = [
        [arm_label(view, arm), seed_count(view, arm), *(_percent(row.get(c)) for c in columns)]
        for arm, row in rows.items()
    ]
    each = [
        [arm_label(view, arm), str(run.real_seed), *_cells(run, columns)]
        for arm in arms
        for run in view.runs("test", arm)
    ]
    by_points = run_figure(view, "test").endswith("hit_mAP")
    unit = f"test {called(run_figure(view, 'test'))} in %{of_videos(view)}{data_label(view)}"
    parts = [
        title,
        _ONLY_POINTS if by_points else "",
        _headline(view, bounds),
        f"Mean ± standard deviation over seeds, {unit}:",
        table(["configuration", "seeds", *columns], body),
        picture,
        f"Every seed, {unit}:",
        table(["configuration", "seed", *columns], each),
        _reselection(view),
    ]
    return "\n\n".join(part for part in parts if part)


def _headline(view: StudyView, bounds: str) -> str:
    """Best against defaults in one sentence, where both finished."""
    name = run_figure(view, "test")
    arms = ("best", "default")
    best, default = (summarise(finished(view, "test", arm)).get(name) for arm in arms)
    if best is None or default is None:
        return ""
    said = f" {bounds}" if bounds else ""
    start = (
        f"The best configuration found reaches {_percent(best)} % {called(name)}, the defaults "
        f"{_percent(default)} %"
    )
    paired = tested_difference(view)
    if paired and not math.isclose(paired.mean, best.mean - default.mean, abs_tol=1e-9):
        return f"{start}; paired by seed {100 * paired.mean:+.2f} points{said}{data_label(view)}."
    gain = 100 * (best.mean - default.mean)
    return f"{start}: {gain:+.2f} points{said}{data_label(view)}."


def _named(found: Mapping[str, Summary]) -> dict[str, Summary]:
    """Columns of a table of mAP: thresholds, then averages; or that of pure hits."""
    columns = {f"@{float(m[1]):g}": s for k, s in found.items() if (m := _THRESHOLD.match(k))}
    columns |= {m[1]: s for k, s in found.items() if (m := _AVERAGE.match(k))}
    return columns | {called(k): s for k, s in found.items() if k.endswith("/hit_mAP")}


def _cells(run: FinalReport, columns: Sequence[str]) -> list[str]:
    if not run.metrics:
        return [f"diverged: {_inline(run.message)}", *[""] * (len(columns) - 1)]
    named = _named(summarise([run]))
    return [_percent(named.get(c)) for c in columns]


def seed_count(view: StudyView, arm: str) -> str:
    """How many test runs of an arm finished, and of how many if some diverged."""
    all_runs, good = view.runs("test", arm), finished(view, "test", arm)
    return f"{len(good)}" if len(good) == len(all_runs) else f"{len(good)} of {len(all_runs)}"


def _reselection(view: StudyView) -> str:
    arms = view.arms("reselect")
    if not arms:
        return ""
    body, name = [], run_figure(view, "reselect")
    for arm in arms:
        good = finished(view, "reselect", arm)
        value = _percent(summarise(good).get(name))
        body.append([arm, f"{len(good)} of {len(view.runs('reselect', arm))}", value])
    caption = f"The best trials again with new seeds, {called(name)} on the selection fold in %"
    return f"{caption}{data_label(view)}:\n\n" + table(
        ["arm", "seeds", f"val {called(name)}"], body
    )


def _configuration(view: StudyView) -> str:
    if view.best_config() is None:
        return ""
    chosen = with_trial("recommended", view, "best")
    body = [[f"`{name}`", as_text(value), as_text(default), domain]
            for name, value, default, domain in changed(view)]  # fmt: skip
    return "\n\n".join(
        [
            "## Configuration",
            f"Parameters that were searched or differ from their default{data_label(view)}; "
            "`best.yaml` holds all:",
            table(["parameter", chosen, "default", "searched"], body),
        ]
    )


def _search(view: StudyView, shares: Mapping[str, float], pictures: Mapping[str, str]) -> str:
    counts = [[state, str(number)] for state, number in view.counts.items()]
    failed = [t for t in view.trials if t.state == "failed"]
    parts = [
        f"## Search{data_label(view)}",
        table(["trials", "number"], [*counts, ["all", str(len(view.trials))]]),
        early_stopping_text(view),
        pictures["optimisation_history"],
        pictures["importance"],
    ]
    if shares:
        body = [[f"`train.{name}`", f"{100 * share:.1f}"] for name, share in shares.items()]
        parts.append(table(["parameter", "share, %"], body))
    parts += ["\n".join(f"- trial {t.number} failed: {_inline(t.message)}" for t in failed)]
    return "\n\n".join(part for part in parts if part)


def _incidents(view: StudyView) -> str:
    """What was lost and taken up again; "" for a study in which nothing was."""
    lines = [f"- {_clock(e.time)}: {_incident(e)}" for e in view.incidents]
    if not lines:
        return ""
    said = (
        "No finished trial was lost or counted twice. Interrupted runs continued from their files."
    )
    return "\n\n".join(["## Incidents", said, "\n".join(lines)])


def _incident(event: StudyStart | Restart | StudyEnd) -> str:
    if isinstance(event, StudyStart):
        return "the study was continued"
    if isinstance(event, Restart) and not event.again:
        return f"`{event.run}` {_inline(event.reason)}. `--resume` retries it"
    if isinstance(event, Restart):
        return f"`{event.run}` was restarted: {_inline(event.reason)}"
    reason = f": {_inline(event.message)}" if event.message else ""
    return f"the study was interrupted{reason}"


def _clock(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def _provenance(view: StudyView) -> str:
    study = view.study
    lines = [
        *(f"{name}: {value}" for name, value in origin(view).items()),
        f"data: {study.dataset}, {study.features}, content {study.data_hash[:16]}",
        f"seeds: {seeds_of(view)}",
        f"from the first to the last event: {seconds_of(view)}; all results are in "
        "`result.json`, with one row per report in `trials.parquet`",
    ]
    return "## Provenance\n\n" + "\n".join(f"- {line}" for line in lines)


def leaderboard_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `leaderboard.leaderboard` as a table."""
    names = ("dataset", "features", "average", "method", "labels", "study", "trials", "seeds")
    head = [*names, "test videos", "test reads", "test mAP, %", "defaults, %"]
    body = [
        [*(str(r[n]) for n in names), "" if r["test_videos"] is None else str(r["test_videos"]),
         str(r["test_reads"]), _judged(r, "mAP", "sd"), _judged(r, "default_mAP", "default_sd")]
        for r in rows
    ]  # fmt: skip
    said = [f"{r['study']}: {r['habit']}" for r in rows if r["habit"]]
    return "\n\n".join([table(head, body), *said])


def study_metric(view: StudyView) -> str:
    """By what the trials of a study were judged: "map" or "points"."""
    selection = view.study.space.get("selection", {})
    return "points" if selection.get("metric") == "points" else "map"


def objective_axis(view: StudyView) -> str:
    """The title of an axis of objectives of trials, in percent."""
    where = "the test split" if on_test(view) else "held-out videos"
    return f"{objective_unit(view)} on {where}, %"


def _judged(row: Mapping[str, Any], mean: str, sd: str) -> str:
    """A value of a row, with what it is where that is not mAP."""
    other = f" ({row['metric']})" if row["metric"] != "mAP" and row[mean] is not None else ""
    return _spread(row[mean], row[sd]) + other


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown: `head` and the rows of `body`, a text a column."""
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(summary: Summary | None) -> str:
    return _spread(summary.mean, summary.sd) if summary else ""


def _spread(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    return f"{100 * mean:.2f}" + (f" ± {100 * sd:.2f}" if sd is not None else "")


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
