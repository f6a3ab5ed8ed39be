"""The page of `data validate`: what a data set holds, and what is wrong or odd in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptal_ray.data.findings import SHOWN, Remarks, by_kind, first_of
from ptal_ray.data.importing.survey import survey, surveyed
from ptal_ray.data.statistics import Labelled, judge, statistics, stored_videos, table
from ptal_ray.data.store import FeatureStore
from ptal_ray.process.words import counted


def page(
    videos: Sequence[Labelled],
    classes: Sequence[str],
    problems: Sequence[str],
    remarks: Mapping[str, int],
    examples: Mapping[str, Sequence[str]],
) -> list[str]:
    """Lines of text: counts, then problems and remarks by kind, the worst of each.

    Args:
        videos: those of both splits.
        classes: class names.
        problems: what an import refuses.
        remarks: counts by kind.
        examples: some of what `remarks` counts.
    """
    found = statistics(videos, classes)
    lines = [
        f"{subset:<5} {split.videos} videos, {split.hours:.2f} h, {split.all.instances} instances, "
        f"{split.all.points} points"
        for subset, split in found.items()
    ]
    lines += ["", *table(found, SHOWN)] if classes else []
    for kind, group in by_kind(problems).items():
        lines += ["", f"PROBLEM {kind}: {len(group)}", *_indented(group)]
    for kind, count in remarks.items():
        lines += ["", f"remark  {kind}: {count}", *_indented(examples.get(kind, ()))]
    return [*lines, ""]


def summary_line(problems: Sequence[str]) -> str:
    """One line on problems: how many, of which kinds."""
    kinds = by_kind(problems)
    return f"{counted(len(problems), 'problem')} ({', '.join(kinds)}); correct them, then import"


def review(store: FeatureStore) -> tuple[list[str], Remarks]:
    """Problems and remarks of a store, after its content was compared with its hash.

    Raises:
        DataError: the content is not what was imported.
    """
    store.verify()
    problems: list[str] = []
    remarks = Remarks()
    videos = stored_videos(store)
    judge(videos, store.info.classes, problems, remarks)
    found = (surveyed(v.id, store.video(v.id).features) for v in videos)
    survey(found, store.dtype, problems, remarks)
    return problems, remarks


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in first_of(lines)]
