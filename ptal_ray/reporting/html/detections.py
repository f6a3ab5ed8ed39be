"""Sections on what the test runs detected: by class, by kind of error, by kind of instance, and in
single videos."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptal_ray.data.types import Segments
from ptal_ray.ops.metrics import detection_map
from ptal_ray.reporting.diagnosis import BINS, GROUPS, KINDS, RIGHT, Diagnosis, diagnose
from ptal_ray.reporting.html.outcome import note
from ptal_ray.reporting.html.page import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    YELLOW,
    Figure,
    Section,
    paragraph,
    table,
)
from ptal_ray.reporting.tested import Tested

KIND_COLOURS = (GREEN, YELLOW, PURPLE, BLUE, ORANGE, GREY)
GRID = 400  # points of a score over time
MOST_BANDS = 6  # classes of a video that are drawn


def classes(tested: Tested) -> Section:
    """AP of each class, mean over seeds and the averaged thresholds."""
    found = {
        arm: np.mean([
            detection_map(tested.truth, tested.found[key], len(tested.classes),
                          [tested.tiou[k] for k in tested.averaged]).per_class.mean(axis=1)
            for key in tested.found if key[0] == arm
        ], axis=0)
        for arm in dict.fromkeys(arm for arm, _ in tested.found)
    }  # fmt: skip
    counts = np.bincount(
        np.concatenate([own.label for own in tested.truth.values()]), minlength=len(tested.classes)
    )
    shown = np.flatnonzero(counts)
    main = next(iter(found.values()))
    order = shown[np.argsort(-main[shown], kind="stable")]
    rows = [
        [tested.classes[k], int(counts[k]), *(float(100 * own[k]) for own in found.values())]
        for k in order
    ]
    data = [
        {"type": "bar", "x": [tested.classes[k] for k in order], "marker": {"color": _colour(arm)},
         "y": [float(100 * own[k]) for k in order], "name": tested.names[arm]}
        for arm, own in found.items()
    ]  # fmt: skip
    axes = {"yaxis": {"title": {"text": "AP, %"}}, "xaxis": {"automargin": True}}
    head = ["class", "instances", *(f"AP, %, {tested.names[arm]}" for arm in found)]
    listed = table(head, rows, sortable=True)
    parts: list[str | Figure] = [Figure(data=data, layout=axes, height=380), listed]
    return Section(key="classes", title="Classes", parts=parts)


def diagnoses(tested: Tested) -> dict[str, Diagnosis]:
    """The first seed of each arm, by arm."""
    firsts = {arm: tested.first(arm) for arm in dict.fromkeys(arm for arm, _ in tested.found)}
    return {
        arm: diagnose(tested.truth, tested.found[key], tested.durations, len(tested.classes))
        for arm, key in firsts.items()
        if key is not None
    }


def errors(tested: Tested, found: dict[str, Diagnosis]) -> Section:
    """Kinds of detections, the strongest first."""
    parts: list[str | Figure] = []
    for arm, own in found.items():
        data = [
            {"type": "bar", "x": [f"{k + 1}G" for k in range(GROUPS)], "name": kind,
             "y": (100 * own.shares[:, index]).tolist(), "marker": {"color": KIND_COLOURS[index]}}
            for index, kind in enumerate(KINDS)
        ]  # fmt: skip
        axes = {"barmode": "stack", "yaxis": {"title": {"text": "share, %"}, "range": [0, 100]},
                "xaxis": {"title": {"text": "detections, in multiples of instances"}},
                "legend": {"orientation": "h", "y": -0.25, "x": 0},
                "margin": {"l": 56, "r": 16, "t": 12, "b": 120}}  # fmt: skip
        parts += [paragraph(tested.names[arm]), Figure(data=data, layout=axes, height=400)]
    said = (
        f"First seed, tIoU {RIGHT:g}. 1G: for each class with G instances, its G detections with "
        "the highest scores; 2G: the next G. Double: its instance has a detection of higher score. "
        "Localisation, confusion: tIoU 0.1 to 0.5 with an instance of the class, of another class."
    )
    return Section(key="errors", title="Errors", parts=[*parts, note(said)])


def sensitivity(tested: Tested, found: dict[str, Diagnosis]) -> Section:
    """Which instances are found."""
    parts: list[str | Figure] = []
    names = {
        "length": "length of the instance",
        "coverage": "share of its video that it covers",
        "instances": "instances of its class in its video",
    }
    for name, title in names.items():
        data = [
            {"type": "bar", "x": list(BINS[name]), "marker": {"color": _colour(arm)},
             "y": [None if v is None else 100 * v for v in own.found[name]],
             "text": [f"{n} instances" for n in own.counts[name]], "textposition": "none",
             "name": tested.names[arm]}
            for arm, own in found.items()
        ]  # fmt: skip
        axes = {"xaxis": {"title": {"text": title}, "type": "category", "automargin": True},
                "yaxis": {"title": {"text": "found, %"}, "range": [0, 100]}}  # fmt: skip
        parts.append(Figure(data=data, layout=axes, height=280))
    said = (
        f"Share of the instances matched at tIoU {RIGHT:g} by one of the 1G detections of their "
        "class, those with the highest scores (see Errors); first seed."
    )
    return Section(key="sensitivity", title="Sensitivity", parts=[*parts, note(said)])


def videos(tested: Tested, arm: str) -> Section:
    """The video that went best, the median one and the worst one."""
    key = tested.first(arm) or min(tested.found)
    own = tested.found[key]
    able = {v: real for v, real in tested.truth.items() if len(real)}
    value = {v: _one_map(tested, able[v], own.get(v)) for v in able}
    ranked = sorted(value, key=lambda v: (-value[v], v))
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    parts: list[str | Figure] = []
    for name, video in chosen.items():
        said = f"{name.capitalize()}: {video}, mAP {100 * value[video]:.1f} % at tIoU {RIGHT:g}"
        parts += [paragraph(said), _timeline(tested, video, own.get(video))]
    remark = (
        f"{tested.names[key[0]]}, first seed. Dark bars are instances. Light bars are "
        "the detections with the highest scores, as many as instances. The curve is the highest "
        "score of a detection at each time, as a share of the highest score of the video."
    )
    return Section(key="videos", title="Videos", parts=[*parts, note(remark)])


def _one_map(tested: Tested, real: Segments, found: Segments | None) -> float:
    predictions = {"v": found} if found is not None else {}
    return detection_map({"v": real}, predictions, len(tested.classes), [RIGHT]).average


def _timeline(tested: Tested, video: str, found: Segments | None) -> Figure:
    real, duration = tested.truth[video], tested.durations[video]
    present, number = np.unique(real.label, return_counts=True)
    bands = present[np.argsort(-number, kind="stable")][:MOST_BANDS]
    data: list[dict[str, Any]] = []
    times = np.linspace(0, duration, GRID)
    top = 1.0 if found is None or not len(found) else max(1e-9, float(found.score.max()))
    strongest = None if found is None else found.take(np.arange(min(len(real), len(found))))
    for k, label in enumerate(bands):
        lane = len(bands) - 1 - k
        colour = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY)[k]
        name = tested.classes[label]
        data.append(_bars(real, label, lane + 0.12, colour, 1.0, f"{name}, instance"))
        if found is None or strongest is None:
            continue
        data.append(_bars(strongest, label, lane - 0.12, colour, 0.45, f"{name}, detection"))
        mine = found.take(found.label == label)
        covers = (mine.start_s[:, None] <= times) & (times <= mine.end_s[:, None])
        score = np.where(covers, mine.score[:, None], 0).max(axis=0, initial=0) / top
        data.append({"x": times.tolist(), "y": (lane + 0.28 + 0.4 * score).tolist(),
                     "mode": "lines", "line": {"color": colour, "width": 1},
                     "name": f"{name}, score", "hoverinfo": "skip"})  # fmt: skip
    axes = {
        "barmode": "overlay", "showlegend": False,
        "xaxis": {"title": {"text": "seconds"}, "range": [0, duration]},
        "yaxis": {"tickvals": list(range(len(bands))), "automargin": True,
                  "ticktext": [tested.classes[b] for b in bands[::-1]],
                  "range": [-0.4, len(bands) - 0.2]},
    }  # fmt: skip
    return Figure(data=data, layout=axes, height=110 + 64 * len(bands))


def _bars(
    own: Segments, label: int, lane: float, colour: str, opacity: float, name: str
) -> dict[str, Any]:
    mine = own.take(own.label == label)
    return {
        "type": "bar", "orientation": "h", "base": mine.start_s.tolist(), "width": 0.2,
        "x": (mine.end_s - mine.start_s).tolist(), "y": [lane] * len(mine), "name": name,
        "marker": {"color": colour}, "opacity": opacity,
    }  # fmt: skip


def _colour(arm: str) -> str:
    return COLOURS.get(arm, GREY)
