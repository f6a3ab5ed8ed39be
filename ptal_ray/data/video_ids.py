"""Ids of videos, which the files of ActivityNet write with and without "v_" before them."""

from __future__ import annotations

from collections.abc import Container

_MARK = "v_"


def bare(id: str) -> str:
    """`id` without "v_": the same for both ways to write it."""
    return id.removeprefix(_MARK)


def spellings(id: str) -> tuple[str, str, str]:
    """The ways to write an id, as it is given first."""
    return id, bare(id), _MARK + id


def same_id(id: str, known: Container[str]) -> str | None:
    """The spelling of `id` in `known`; None if it has none."""
    return next((i for i in spellings(id) if i in known), None)
