"""Methods against each other: on each data set, and over all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.errors import DataError
from ptal_ray.ops.metrics import Matches
from ptal_ray.process.words import counted
from ptal_ray.reporting.leaderboard import labels
from ptal_ray.reporting.resampling import holm, p_text, resample
from ptal_ray.reporting.tested import Tested, read_tested
from ptal_ray.reporting.text import finished
from ptal_ray.study.captions import num_test_videos
from ptal_ray.study.conclusion import MEASURE, Interval, conclusion, interval, test_reads
from ptal_ray.study.paper_compat import selection_gain
from ptal_ray.study.view import StudyView

LEVEL = 0.05  # of a corrected p-value that shows a difference

Place = tuple[str, str, str]  # dataset, features, labels


@dataclass(kw_only=True)
class Entry:
    """One method on one data set, its repeated studies pooled.

    Args:
        method: its name.
        studies: names of the studies.
        values: test mAP of the recommended configuration, by seed of all studies.
        budgets: steps that the trials of each study trained.
        videos: numbers of test videos, of which studies of one store have one; empty where their
            logs do not say.
        reads: how often the test split was read.
        habits: what selecting on the test split gained, a sentence a study that did.
        matches: the seeds' detections, where the videos are on this machine.
        tested: of one study, which knows the videos; None where they are not here.
    """

    method: str
    studies: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    budgets: list[int] = field(default_factory=list)
    videos: set[int] = field(default_factory=set)
    reads: int = 0
    habits: list[str] = field(default_factory=list)
    matches: list[Matches] = field(default_factory=list)
    tested: Tested | None = None

    @property
    def interval(self) -> Interval:
        """Over the seeds of all studies."""
        return interval(self.values)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One method minus another on the same videos.

    Args:
        place: the data set.
        one, other: the methods.
        found: the difference in mAP.
        p: that there is none, corrected for all comparisons (Holm).
    """

    place: Place
    one: str
    other: str
    found: Interval
    p: float

    @property
    def text(self) -> str:
        """One line."""
        shown = self.p < LEVEL and self.found.low * self.found.high > 0
        better = self.one if self.found.mean > 0 else self.other
        end = f"{better} is better" if shown else "no difference shown"
        return f"{self.one} - {self.other}: {self.found}, {p_text(self.p)}: {end}"

    def plain(self) -> dict[str, Any]:
        """JSON values; mAP as a fraction."""
        found, (dataset, features, taught) = self.found, self.place
        return {
            "dataset": dataset, "features": features, "labels": taught, "one": self.one,
            "other": self.other, "mean": found.mean, "low": found.low, "high": found.high,
            "p": self.p, "text": self.text,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The methods of several studies.

    Args:
        methods: by data set, the best first.
        pairs: every two methods on the same videos of a data set.
    """

    methods: Mapping[Place, Sequence[Entry]]
    pairs: Sequence[Difference]

    def text(self) -> str:
        """A line per pair, and what they rest on; "" where no two methods were tested on the same
        videos."""
        lines = [f"{pair.place[0]}: {pair.text}" for pair in self.pairs]
        return "\n".join([*lines, self.basis] if lines else [])

    @property
    def basis(self) -> str:
        """What the intervals and the p-values are: the two may disagree."""
        number = counted(len(self.pairs), "comparison")
        return (
            "Differences in mAP points on the same videos, with 95 % intervals of each alone by "
            f"bootstrap over seeds and videos; p-values corrected for {number} (Holm)."
        )


def compared(studies: Mapping[Path, StudyView]) -> Comparison:
    """Compares the methods of studies, given by directory; takes seconds for hundreds of runs."""
    methods = entries(studies)
    return Comparison(methods=methods, pairs=differences(methods))


def entries(studies: Mapping[Path, StudyView]) -> dict[Place, list[Entry]]:
    """Methods by data set, the best first.

    Args:
        studies: by directory; those without a finished test run are left out.
    """
    found: dict[Place, dict[str, Entry]] = defaultdict(dict)
    for directory, view in studies.items():
        arm = conclusion(view).arm
        runs = [r for r in finished(view, "test", arm) if MEASURE in r.metrics]
        if not runs:
            continue
        study = view.study
        place = (study.dataset, study.features, labels(view))
        method = study.method
        entry = found[place].setdefault(method, Entry(method=method))
        entry.studies.append(study.study)
        entry.values += [run.metrics[MEASURE] for run in runs]
        entry.budgets.append(sum(t.step for t in view.trials))
        if (number := num_test_videos(view)) is not None:
            entry.videos.add(number)
        entry.reads += test_reads(view)
        if gained := selection_gain(view):
            entry.habits.append(f"{study.study}: {gained.text}")
        _add_detections(entry, view, directory, arm)
    return {
        place: sorted(methods.values(), key=lambda e: (-np.mean(e.values), e.method))
        for place, methods in sorted(found.items())
    }


def _add_detections(entry: Entry, view: StudyView, directory: Path, arm: str) -> None:
    try:
        tested = read_tested(view, directory)
    except DataError:  # the table says of which methods the videos are missing
        return
    if entry.tested is None or entry.tested.data_hash == tested.data_hash:
        entry.tested = tested
        entry.matches += tested.runs(arm)


def unequal(group: Sequence[Entry]) -> bool:
    """Whether the budgets of the methods of a data set differ by more than a tenth."""
    means = [float(np.mean(entry.budgets)) for entry in group]
    return max(means) > 1.1 * min(means)


def differences(found: Mapping[Place, Sequence[Entry]]) -> list[Difference]:
    """Every pair of methods on every data set, corrected for their number."""
    raw: list[tuple[Place, str, str, Interval, float]] = []
    for place, group in found.items():
        able = [entry for entry in group if entry.tested is not None and entry.matches]
        if len(able) < 2 or len({e.tested.data_hash for e in able if e.tested}) > 1:
            continue
        first = able[0].tested
        assert first is not None
        drawn = resample({e.method: e.matches for e in able}, first.averaged)
        for one, other in combinations([e.method for e in able], 2):
            raw.append((place, one, other, *drawn.difference(one, other)))
    corrected = holm([p for *_, p in raw])
    return [
        Difference(place=place, one=one, other=other, found=own, p=p)
        for (place, one, other, own, _), p in zip(raw, corrected, strict=True)
    ]


def ranks(found: Mapping[Place, Sequence[Entry]]) -> dict[str, dict[Place, int]]:
    """Rank of each method on each data set that has at least two, by mean mAP; by method."""
    table: dict[str, dict[Place, int]] = defaultdict(dict)
    for place, group in found.items():
        if len(group) > 1:
            for rank, entry in enumerate(group, start=1):
                table[entry.method][place] = rank
    return dict(sorted(table.items(), key=lambda item: np.mean(list(item[1].values()))))
