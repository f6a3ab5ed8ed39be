"""The first two sections: what the study concludes, and the test table with intervals."""

from __future__ import annotations

from typing import Any

from ptal_ray.process.words import counted
from ptal_ray.reporting.benchmark import Benchmark, sureness
from ptal_ray.reporting.html.page import COLOURS, GREY, Figure, Section, paragraph, table
from ptal_ray.reporting.text import by_threshold, data_label, finished, seed_count
from ptal_ray.study.captions import arm_label, of_videos
from ptal_ray.study.conclusion import MEASURE, Interval, conclusion, interval, test_reads
from ptal_ray.study.cross_validation import NOT_SEALED
from ptal_ray.study.paper_compat import on_test, selection_gain
from ptal_ray.study.view import StudyView, summarise


def verdict(view: StudyView) -> Section:
    """One sentence, and what it rests on."""
    found = conclusion(view)
    study = view.study
    said = (
        f"Method {study.method} on {study.dataset}, features: {study.features}. "
        f"{len(view.trials)} trials, {_last_runs(view, found.arm)}. "
        f"{study.note}"
    )
    state = "" if view.end and view.end.state == "done" else "The study is not finished."
    pairs = "seed" if view.has_test else "fold"
    basis = (
        f"The interval is of the difference in {found.unit} points, 95 %, paired by {pairs}."
        if found.on_test or not found.verdict
        else "The difference is what the search measured on fresh folds and seeds, in "
        f"{found.unit} points, with the interval of its gate."
    )
    parts = [paragraph(found.text, f"verdict {found.verdict}".strip())]
    gained = selection_gain(view)
    parts += [paragraph(gained.text, "verdict tie")] if gained else []
    parts += [paragraph(state)] if state else []
    return Section(key="verdict", title="", parts=[*parts, paragraph(said), note(basis)])


def _last_runs(view: StudyView, arm: str) -> str:
    if not view.has_test:
        return NOT_SEALED
    return f"{counted(len(view.runs('test', arm)), 'test run')} of the recommended configuration"


def note(text: str) -> str:
    """A remark in small grey letters."""
    return paragraph(text, "note")


def test_table(view: StudyView, benchmark: Benchmark) -> Section:
    """mAP of each tested configuration with its interval, and by threshold.

    Args:
        view: the study.
        benchmark: its test runs.
    """
    resampled = benchmark.resampled
    rows: list[list[Any]] = []
    for arm in view.arms("test"):
        runs = finished(view, "test", arm)
        found = summarise(runs).get(MEASURE)
        if found is None:
            continue
        both = resampled.interval(arm) if resampled and arm in resampled.maps else None
        rows.append([
            arm_label(view, arm), seed_count(view, arm), f"{100 * found.mean:.2f}",
            "" if found.sd is None else f"{100 * found.sd:.2f}",
            interval(found.values).bounds, both.bounds if both else "",
        ])  # fmt: skip
    if not rows:
        why = "No final run has finished."
        if any(finished(view, "test", arm) for arm in view.arms("test")):
            why = "The test videos have no segments; REPORT.md has the results on their points."
        return Section(key="test", title="Test", parts=[note(why)])
    head = ["configuration", "seeds", f"test mAP{of_videos(view)}, %", "sd", "95 % over seeds",
            "95 % over seeds and videos"]  # fmt: skip
    parts: list[str | Figure] = [table(head, rows)]
    lost = [run for arm in view.arms("test") for run in view.runs("test", arm) if not run.metrics]
    if lost:
        parts.append(note(f"Not in the means, because of divergence: {counted(len(lost), 'run')}."))
    if gain := benchmark.difference:
        said = f"{Interval.of(gain)} mAP points ({sureness(gain)})"
        parts.append(paragraph(f"Recommended minus defaults: {said}."))
    if benchmark.missing:
        parts.append(note(f"No interval over videos: {benchmark.missing}."))
    parts += [
        _thresholds(view),
        note(f"Bars are one standard deviation over seeds{data_label(view)}."),
    ]
    reads = counted(test_reads(view), "time")
    once = "once per run and once per report of a trial" if on_test(view) else "once per run"
    sealed = "" if on_test(view) else "sealed "
    parts.append(note(f"The {sealed}test split was read {reads}: {once}."))
    return Section(key="test", title=f"Test{data_label(view)}", parts=parts)


def _thresholds(view: StudyView) -> Figure:
    data = []
    for arm in view.arms("test"):
        values = by_threshold(view, arm)
        data.append({
            "x": list(values), "y": [100 * s.mean for s in values.values()],
            "error_y": {"array": [100 * (s.sd or 0) for s in values.values()]},
            "name": arm_label(view, arm), "marker": {"color": COLOURS.get(arm, GREY)},
        })  # fmt: skip
    axes = {
        "xaxis": {"title": {"text": "tIoU threshold"}},
        "yaxis": {"title": {"text": f"test mAP{of_videos(view)}, %"}, "rangemode": "tozero"},
    }
    return Figure(data=data, layout=axes)
