"""What is noticed in data: problems, which stop an import, and remarks, which do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

SHOWN = 10  # lines of one kind on a page
OTHER = "other problems"


class Problem(str):
    """One line on what is wrong, of a kind; `badness` orders the problems of a kind."""

    kind: str
    badness: float

    def __new__(cls, text: str, kind: str, badness: float = 0.0) -> Problem:
        problem = super().__new__(cls, text)
        problem.kind, problem.badness = kind, badness
        return problem


class Remarks(Counter[str]):
    """Counts by kind, with examples of some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, list[str]] = {}

    def note(self, kind: str, example: str, count: int = 1) -> None:
        """Adds `count` of a kind, and one example."""
        self[kind] += count
        self.examples.setdefault(kind, []).append(example)


def by_kind(problems: Iterable[str]) -> dict[str, list[str]]:
    """Problems by kind, the worst of each kind first; a line without a kind is of OTHER."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        kind = problem.kind if isinstance(problem, Problem) else OTHER
        found.setdefault(kind, []).append(problem)
    return {kind: sorted(lines, key=_order) for kind, lines in found.items()}


def first_of(lines: Sequence[str], most: int = SHOWN) -> list[str]:
    """The first lines, and one that says how many more there are."""
    rest = len(lines) - most
    return [*lines[:most], *([f"and {rest} more"] if rest > 0 else [])]


def remark_lines(remarks: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> list[str]:
    """A line a kind: its count, and the first examples."""
    lines = []
    for kind, count in remarks.items():
        shown = "; ".join(first_of(examples.get(kind, ()), 3))
        lines.append(f"{kind}: {count}" + (f" ({shown})" if shown else ""))
    return lines


def _order(problem: str) -> float:
    return -problem.badness if isinstance(problem, Problem) else 0.0
