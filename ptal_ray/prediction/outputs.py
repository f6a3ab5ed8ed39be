"""Detections as files, written atomically: ActivityNet JSON, CSV, subtitles or an HTML page."""

from __future__ import annotations

import csv
import html
import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptal_ray.data.evaluation.detections import write_detections
from ptal_ray.data.types import Segments
from ptal_ray.errors import ConfigError
from ptal_ray.prediction.formats import FORMATS
from ptal_ray.prediction.page import page
from ptal_ray.prediction.run import Found
from ptal_ray.storage.ownership import check_writable
from ptal_ray.storage.whole import write_whole

_BY_SUFFIX = {f".{name}": name for name in FORMATS} | {".htm": "html"}
_SUBTITLES = ("srt", "vtt")


def output_format(out: Path, asked: str | None) -> str:
    """The format in --format, else of the suffix of --out, else JSON.

    Raises:
        ConfigError: a folder exists where a file is written, or the reverse.
    """
    kind = asked or _BY_SUFFIX.get(out.suffix.lower(), "json")
    if out.exists() and out.is_dir() != (kind in _SUBTITLES):
        needed = "a folder, with one file a video" if kind in _SUBTITLES else "a file"
        raise ConfigError(f"--out {out}: format {kind} is {needed}; give another path")
    check_writable("--out", out, folder=kind in _SUBTITLES)
    return kind


def strongest(found: Segments, least: float, most: int | None) -> Segments:
    """Detections with a score of at least `least`, the `most` best; equal ones keep their order."""
    kept = found.take(found.score >= least)
    if most is None or len(kept) <= most:
        return kept
    best = np.sort(np.argsort(-kept.score, kind="stable")[:most])
    return kept.take(best)


def write_output(out: Path, kind: str, found: Found, classes: tuple[str, ...]) -> None:
    """Write the detections.

    Args:
        out: the file, or the folder of subtitles.
        kind: one of FORMATS.
        found: the detections.
        classes: names of the labels.

    Raises:
        OSError: it cannot be written.
    """
    if kind == "json":
        write_detections(out, found.detections, classes)
    elif kind in _SUBTITLES:
        _write_subtitles(out, kind, found, classes)
    else:
        text = page(found, classes) if kind == "html" else _csv(found, classes)
        write_whole(out, text)


def _csv(found: Found, classes: Sequence[str]) -> str:
    made = io.StringIO(newline="")
    rows = csv.writer(made, lineterminator="\n")
    rows.writerow(["video", "start", "end", "label", "score"])
    for id, own in found.detections.items():
        rows.writerows([id, *row] for row in _rows(own, classes))
    return made.getvalue()


def _rows(own: Segments, classes: Sequence[str]) -> list[tuple[float, float, str, float]]:
    columns = (own.start_s.tolist(), own.end_s.tolist(), own.label.tolist(), own.score.tolist())
    return [(s, e, classes[c], score) for s, e, c, score in zip(*columns, strict=True)]


def _write_subtitles(out: Path, kind: str, found: Found, classes: Sequence[str]) -> None:
    """Write one file per video, beside the folder; they are moved into it when all are complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for id, own in found.detections.items():
            cues = sorted(_rows(own, classes), key=lambda row: (row[0], row[1], -row[3]))
            text = _srt(cues) if kind == "srt" else _vtt(cues)
            (work / f"{id}.{kind}").write_text(text, encoding="utf-8")
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(work.iterdir()):
            os.replace(path, out / path.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _srt(cues: Sequence[tuple[float, float, str, float]]) -> str:
    return "".join(
        f"{number}\n{_clock(s, ',')} --> {_clock(e, ',')}\n{_line(label)} {score:.3f}\n\n"
        for number, (s, e, label, score) in enumerate(cues, 1)
    )


def _vtt(cues: Sequence[tuple[float, float, str, float]]) -> str:
    body = "".join(
        f"{_clock(s, '.')} --> {_clock(e, '.')}\n"
        f"{html.escape(_line(label), quote=False)} {score:.3f}\n\n"
        for s, e, label, score in cues
    )
    return f"WEBVTT\n\n{body}"


def _line(label: str) -> str:
    return " ".join(label.split())


def _clock(time_s: float, point: str) -> str:
    """hh:mm:ss.mmm, with the decimal separator of the format."""
    ms = round(time_s * 1000)
    hours, minutes, rest = ms // 3_600_000, ms // 60_000 % 60, ms % 60_000
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
