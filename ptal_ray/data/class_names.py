"""Names of classes: what a file may call them, and which are taken for each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

_CONTROL = ("Cc", "Cs")  # categories of control characters, and of halves of a character


def read_classes(given: Any, labels: Iterable[Any]) -> tuple[tuple[str, ...], list[str]]:
    """The class names of an annotation file, and what is wrong with them.

    Args:
        given: its "classes", None where it has none.
        labels: those of its instances.

    Returns:
        `given` where it is a list of different names, else all labels that are names, sorted; and
        a line a problem.
    """
    used = tuple(sorted({label for label in labels if _is_name(label)}))
    if given is None:
        return used, list(_alike(used))
    if not isinstance(given, list) or not given:
        shown = "an empty list" if isinstance(given, list) else f"{given!r:.60}"
        return used, [f'"classes" is {shown}; list all class names, or leave "classes" out']
    wrong = [name for name in given if not _is_name(name)]
    if wrong:
        return used, [f'"classes" holds {wrong[0]!r}; names are needed on one line, as in "open"']
    twice = [name for at, name in enumerate(given) if name in given[:at]]
    if twice:
        return used, [f'"classes" holds {twice[0]!r} twice; list each name once']
    return tuple(given), []


def label_problem(label: Any, classes: Sequence[str]) -> str:
    """What is wrong with the label of an instance; empty where nothing is."""
    if label == "" or (isinstance(label, str) and not label.strip()):
        return f"label {label!r} is empty; a class name is needed"
    if isinstance(label, str) and _has_control(label):
        return f"label {label!r} holds a line end or another control character; remove it"
    if isinstance(label, int | float):
        return f"label {label!r} is not a name; write the name of the class, in quotes"
    if not isinstance(label, str) or label not in classes:
        near = f"; {known(label, classes)}" if isinstance(label, str) else ""
        return f"label {label!r} is not among the file's classes{near}"
    return ""


def known(name: str, classes: Sequence[str]) -> str:
    """The class that `name` was meant to be, else those there are."""
    if not classes:
        return 'the annotations name none: list all class names in the JSON, as "classes": [...]'
    alike = [c for c in classes if folded(c) == folded(name)]
    near = alike or difflib.get_close_matches(name, classes, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(classes) - 8} more" if len(classes) > 8 else ""
    return f"known are {', '.join(classes[:8])}{more}"


def folded(name: str) -> str:
    """`name` without case and spaces."""
    return "".join(name.casefold().split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ by case or spaces alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _alike(names: Sequence[str]) -> Iterable[str]:
    for group in alike(names):
        shown = " and ".join(map(repr, group))
        yield (
            f"labels {shown} differ by case or spaces alone; write them alike, or list both in "
            '"classes"'
        )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _has_control(value)


def _has_control(name: str) -> bool:
    return any(category(character) in _CONTROL for character in name)
