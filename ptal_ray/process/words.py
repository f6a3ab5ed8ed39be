"""Words in messages that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """`number` and a noun: "1 video", "2 videos"; `plural` for nouns with an irregular plural."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
