"""Words in messages that depend on a number."""

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
