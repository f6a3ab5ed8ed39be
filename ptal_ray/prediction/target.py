"""Checks that a prediction replaces only files of an earlier prediction."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ptal_ray.storage.ownership import begins_with, check_files, read_object

_CUE = re.compile(rb"1\n-?[\d:,]+ --> [\d:,]+\n[^\n]* -?\d+\.\d{3}\n")  # start of our SRT files


def check_output(out: Path, kind: str, ids: Iterable[str]) -> None:
    """Check before scoring that the output may be written.

    Args:
        out: the file, or the folder of subtitles.
        kind: the format.
        ids: of the videos; they are the names of subtitle files.

    Raises:
        ConfigError: a file from another source would be replaced.
    """
    if kind in ("srt", "vtt"):
        known = _is_srt if kind == "srt" else lambda path: begins_with(path, "WEBVTT\n\n")
        check_files("--out", out, {f"{id}.{kind}": known for id in ids})
    else:
        check_files("--out", out.parent, {out.name: _KNOWN[kind]})


def check_export(out: Path, about: str) -> None:
    """Check that an exported program may be written to `out`.

    Args:
        out: the file.
        about: name of the extra file in our programs.

    Raises:
        ConfigError: a file from another source would be replaced.
    """
    check_files("--export", out.parent, {out.name: lambda path: _holds(path, about)})


def _holds(path: Path, name: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith(name) for member in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _is_srt(path: Path) -> bool:
    content = path.read_bytes()
    return not content or _CUE.match(content) is not None


_KNOWN = {
    "json": lambda path: {"version", "results"} <= read_object(path).keys(),
    "csv": lambda path: begins_with(path, "video,start,end,label,score\n"),
    "html": lambda path: (
        begins_with(path, '<!DOCTYPE html>\n<html lang="en">\n<head>\n')
        and b"<title>Detections</title>" in path.read_bytes()[:400]
    ),
}
