"""An append-only log of JSON lines: the single source of truth of a study.

The lines are described in `event_types.py`. Every line is strict JSON. NaN and infinities are
written as the strings "NaN", "Infinity" and "-Infinity" and become floats again when read, so no
other string may have one of these values.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.errors import DataError, StorageError
from ptal_ray.study.event_types import Event, event_of

_LOG = logging.getLogger(__name__)
_NOT_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class EventLog:
    """Appends to one file; each event is on disk before `append` returns. Thread-safe.

    Args:
        path: events.jsonl; created if missing, and repaired if a killed writer left a partial line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._mend()

    def __reduce__(self) -> tuple[type[EventLog], tuple[Path]]:
        return EventLog, (self.path,)

    def append(self, event: Event) -> None:
        """Adds one event.

        Raises:
            StorageError: the disk is full or not available; the log ends with its last complete
                line.
            TypeError: a value is none of None, bool, int, float, str, Path, sequence or mapping.
        """
        line = dumps(event.line()).encode() + b"\n"
        with self._lock:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                self._write(file, line, os.fstat(file).st_size)
            finally:
                os.close(file)

    def _write(self, file: int, line: bytes, size: int) -> None:
        try:
            if os.write(file, line) == len(line):
                os.fsync(file)  # some file systems report errors only now
                return
            problem = os.strerror(errno.ENOSPC)
        except OSError as error:
            problem = str(error.strerror)
        os.ftruncate(file, size)
        raise StorageError(
            f"storage full: {self.path} ({problem}); free space and continue with --resume"
        )

    def _mend(self) -> None:
        """Complete or remove a partial last line."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole, _, tail = data.rpartition(b"\n")
        if not tail:
            return
        with self.path.open("r+b") as file:
            if _parses(tail):
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            else:
                _LOG.warning("%s", _torn(self.path, tail))
                file.truncate(len(whole) + 1 if whole else 0)


def dumps(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON; see the docstring of this module for NaN and infinities.

    Args:
        value: mappings, sequences, numbers (NumPy's too), texts, paths, None.
        indent: spaces per level, or None for one line.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def loads(text: str | bytes) -> Any:
    """The value that `dumps` wrote.

    Raises:
        ValueError: not JSON.
    """
    return _numbers(json.loads(text))


def read_events(path: str | Path) -> list[Event]:
    """All events of a log, oldest first.

    A partial last line of a killed writer is ignored; a warning with its place is logged.

    Raises:
        DataError: the file is missing, a line before the last is damaged, or a line has an event
            that this version does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; a study directory holds events.jsonl")
    lines = path.read_bytes().split(b"\n")
    tail = lines.pop()
    if tail and _parses(tail):
        lines.append(tail)
    elif tail:
        _LOG.warning("%s", _torn(path, tail))
    return parse_events(lines, path)


def parse_events(lines: Iterable[bytes], path: Path) -> list[Event]:
    """The events of complete lines of a log.

    Args:
        lines: without their ends.
        path: of the log, for errors.

    Raises:
        DataError: a line is damaged, or has an event that this version does not know.
    """
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _plain(value: Any) -> Any:
    """`value` in JSON's own types."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _numbers(value: Any) -> Any:
    """The inverse of `_plain` for NaN and infinities."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return _NOT_JSON.get(value, value) if isinstance(value, str) else value


def _parse(line: bytes, place: str) -> Event:
    try:
        plain = loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON ({error}); restore or remove this line") from error
    if not isinstance(plain, dict) or not {"event", "time"} <= plain.keys():
        raise DataError(f"{place}: not an event; a line is an object with event and time")
    return event_of(plain, place)


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _torn(path: Path, tail: bytes) -> str:
    return f"{path}: the last line was cut off after {len(tail)} bytes and is left out"
