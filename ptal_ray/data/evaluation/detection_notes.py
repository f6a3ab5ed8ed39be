"""Notes on a ground truth and a file of detections that explain their mAP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptal_ray.data.evaluation.detections import DetectionFile, GroundTruth
from ptal_ray.data.types import Segments
from ptal_ray.ops.segments import official_tiou
from ptal_ray.process.words import counted

_FAR = 5.0  # times of detections and instances that differ by this factor have different units
_LEAVE_OUT = "--drop-degenerate removes them"


@dataclass(frozen=True, kw_only=True)
class Note:
    """One note: the number of cases, and a line with the first case."""

    reason: str
    number: int
    text: str


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Segments of all videos end to end."""

    names: tuple[str, ...]
    video: NDArray[np.int64]
    all: Segments

    def note(self, reason: str, mask: NDArray[np.bool_], text: str) -> Note:
        """Of the rows in `mask`; "{}" in the text is the first one."""
        number = int(mask.sum())
        return Note(
            reason=reason,
            number=number,
            text=f"{number} of {len(self.video)} {text.format(self._first(mask))}",
        )

    def _first(self, mask: NDArray[np.bool_]) -> str:
        if not mask.any():
            return ""
        row = int(np.argmax(mask))
        start, end = self.all.start_s[row], self.all.end_s[row]
        return f"{self.names[self.video[row]]!r} [{start:g}, {end:g}] s"


def detection_notes(truth: GroundTruth, found: DetectionFile) -> tuple[Note, ...]:
    """All notes; `number` is 0 for those that do not apply."""
    real, made = _rows(truth.segments), _rows(found.segments)
    return (
        _unknown_videos(truth, found),
        _videos_without(truth, found),
        _unknown_labels(truth, found),
        _renamed(found),
        _text_scores(found),
        *_degenerate_detections(made),
        *_degenerate_truth(real),
        _repeated(made, "repeated", "detections duplicate another one of their video, e.g. {}"),
        _repeated(
            real, "ground_truth_repeated", "instances duplicate another one of their video, e.g. {}"
        ),
        _beyond(made, truth, "beyond_duration", "detections"),
        _beyond(real, truth, "ground_truth_beyond_duration", "instances"),
        _other_unit(truth, found),
        _equal_scores(made),
    )


def zero_cause(truth: GroundTruth, found: DetectionFile, tiou: float) -> str:
    """The likely cause of a mAP of 0.

    Args:
        truth, found: what was compared.
        tiou: the lowest threshold.
    """
    both = {v: s for v, s in found.segments.items() if len(s) and v in truth.segments}
    if not any(map(len, found.segments.values())):
        left = ", ".join(f"{reason} {n}" for reason, n in found.ignored.items() if n)
        return f"all detections are left out ({left})" if left else "there are no detections"
    if not both:
        return (
            f"no detection is in a video of the ground truth; a video id of the ground truth is "
            f"{_some(truth.segments)}, one of the detections is {_some(found.segments)}"
        )
    if not any(np.isin(s.label, truth.segments[v].label).any() for v, s in both.items()):
        return (
            "no detection has the label of an instance of its video; check the labels and the "
            "video ids"
        )
    unit = _other_unit(truth, found)
    if unit.number:
        return unit.text
    best = max(_best(truth.segments[v], s) for v, s in both.items())
    return (
        f"the highest tIoU of a detection with an instance of its class is {best:.3g}, below the "
        f"lowest threshold {tiou:g}"
    )


def _rows(segments: Mapping[str, Segments]) -> _Rows:
    counts = [len(s) for s in segments.values()]
    return _Rows(
        names=tuple(segments),
        video=np.repeat(np.arange(len(counts)), counts),
        all=Segments.concatenate([Segments.empty(), *segments.values()]),
    )


def _unknown_videos(truth: GroundTruth, found: DetectionFile) -> Note:
    unknown = [v for v, s in found.segments.items() if len(s) and v not in truth.segments]
    number = sum(len(found.segments[v]) for v in unknown)
    other = sum(v in truth.elsewhere for v in unknown)
    return Note(
        reason="unknown_video",
        number=number,
        text=f"false positives: {counted(number, 'detection')} in "
        f"{counted(len(unknown), 'video')} not in the ground truth, e.g. {_some(unknown)}"
        + (f"; {other} of these videos are in another subset" if other else ""),
    )


def _videos_without(truth: GroundTruth, found: DetectionFile) -> Note:
    without = [v for v in truth.segments if not len(found.segments.get(v, ()))]
    return Note(
        reason="videos_without_detections",
        number=len(without),
        text=f"no detection in {len(without)} of {counted(len(truth.segments), 'video')} of the "
        f"ground truth, e.g. {_some(without)}",
    )


def _unknown_labels(truth: GroundTruth, found: DetectionFile) -> Note:
    number = found.ignored["unknown_label"]
    labels = []
    for label in islice(found.unknown_labels, 3):
        folded = {name.strip().lower(): name for name in truth.classes}
        near = get_close_matches(label.strip().lower(), folded, n=1, cutoff=0.8)
        labels.append(repr(label) + (f" (like {folded[near[0]]!r})" if near else ""))
    return Note(
        reason="unknown_label",
        number=number,
        text=f"left out: {counted(number, 'detection')} of "
        f"{counted(len(found.unknown_labels), 'label')} not in the ground truth, e.g. "
        f"{', '.join(labels)}",
    )


def _renamed(found: DetectionFile) -> Note:
    name, id = next(iter(found.renamed.items()), ("", ""))
    return Note(
        reason="matched_ids",
        number=len(found.renamed),
        text=f'{counted(len(found.renamed), "video")} matched after adding or removing "v_", e.g. '
        f"{name!r} with {id!r}; the official code counts them as unknown videos",
    )


def _text_scores(found: DetectionFile) -> Note:
    return Note(
        reason="text_scores",
        number=len(found.text_scores),
        text=f"scores are strings in {counted(len(found.text_scores), 'class', 'classes')}, e.g. "
        f"{_some(found.text_scores)}; they are sorted as strings, so '9e-5' ranks above '0.9'",
    )


def _degenerate_detections(made: _Rows) -> tuple[Note, ...]:
    start, end = made.all.start_s, made.all.end_s
    times, score = np.isfinite(start) & np.isfinite(end), made.all.score
    return (
        made.note(
            "end_not_after_start",
            times & (end <= start),
            "detections end at or before their start, e.g. {}; they are false positives, except "
            "that a detection matches (0/0) if its length and that of an instance add up to 0; "
            f"{_LEAVE_OUT}",
        ),
        made.note(
            "not_finite",
            ~times | ~np.isfinite(score),
            "detections have a time or score that is not finite, e.g. {}; a score of NaN ranks "
            f"first and a tIoU of NaN is a match; {_LEAVE_OUT}",
        ),
    )


def _degenerate_truth(real: _Rows) -> tuple[Note, ...]:
    start, end = real.all.start_s, real.all.end_s
    times = np.isfinite(start) & np.isfinite(end)
    return (
        real.note(
            "ground_truth_end_before_start",
            times & (end < start),
            "instances end before their start, e.g. {}; only a detection whose length is minus "
            f"theirs can match; {_LEAVE_OUT}",
        ),
        real.note(
            "ground_truth_zero_length",
            times & (end == start),
            "instances have length 0, e.g. {}; only a detection of length 0 in their video can "
            "match",
        ),
        real.note(
            "ground_truth_not_finite",
            ~times,
            f"instances have a time that is not finite, e.g. {{}}; {_LEAVE_OUT}",
        ),
    )


def _repeated(rows: _Rows, reason: str, text: str) -> Note:
    keys = (rows.all.end_s, rows.all.start_s, rows.all.label, rows.video)
    order = np.lexsort(keys)
    again = np.zeros(len(order), bool)
    again[order[1:]] = np.logical_and.reduce([k[order][1:] == k[order][:-1] for k in keys])
    return rows.note(reason, again, text)


def _beyond(rows: _Rows, truth: GroundTruth, reason: str, what: str) -> Note:
    durations = np.array([truth.durations.get(v, np.nan) for v in rows.names], np.float64)
    duration_s = durations[rows.video]
    text = f"{what} end after the end of their video, e.g. {{}}"
    return rows.note(reason, rows.all.end_s > 1.02 * duration_s + 1.0, text)


def _equal_scores(made: _Rows) -> Note:
    """Detections whose score another one of their class has."""
    label, score = made.all.label, made.all.score
    order = np.lexsort((score, label))
    a, b = score[order][1:], score[order][:-1]
    same = (label[order][1:] == label[order][:-1]) & ((a == b) | (np.isnan(a) & np.isnan(b)))
    tied = np.zeros(len(order), bool)
    tied[order[1:][same]] = tied[order[:-1][same]] = True
    text = "detections have the same score as another one of their class"
    if tied.all() and len(np.unique(score)) == 1:
        text += f": all scores are {score[0]:g}" if len(score) else ""
    text += "; the official code orders ties by machine, this program by their order in the file"
    return made.note("equal_scores", tied, text)


def _other_unit(truth: GroundTruth, found: DetectionFile) -> Note:
    """Whether detections end much later or earlier than instances in most videos."""
    known = [v for v in found.segments if v in truth.segments]
    ends = [(_last(found.segments[v]), _last(truth.segments[v])) for v in known]
    ratios = [made / real for made, real in ends if made > 0 and real > 0]
    ratio = float(np.median(ratios)) if ratios else 1.0
    return Note(
        reason="other_unit",
        number=0 if 1 / _FAR < ratio < _FAR else len(ratios),
        text=f"the last detection of a video ends at {ratio:.3g} times the end of its last "
        f"instance (median of {len(ratios)} videos); check that both are in seconds",
    )


def _last(segments: Segments) -> float:
    return float(np.max(segments.end_s, initial=0.0, where=np.isfinite(segments.end_s)))


def _best(real: Segments, made: Segments) -> float:
    overlap = official_tiou(
        made.start_s[:, None], made.end_s[:, None], real.start_s[None], real.end_s[None]
    )
    alike = made.label[:, None] == real.label[None]
    return float(np.max(overlap, initial=0.0, where=alike & ~np.isnan(overlap)))


def _some(names: Any) -> str:
    return repr(next(iter(names), ""))
