"""Texts of numbers: nouns after a number, times."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """`number` and a noun: "1 video", "2 videos"; `plural` for nouns with an irregular plural."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The text "; did you mean ...?" with the closest of `known`, or none."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def clock(seconds: float) -> str:
    """ "4:05", or "1:04:05" from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
