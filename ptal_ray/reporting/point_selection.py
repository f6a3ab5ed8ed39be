"""What a study that selects by points alone may have lost, where there are segments to tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.datasets import protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Scores
from ptal_ray.errors import DataError
from ptal_ray.methods.method import load, with_values
from ptal_ray.ops.proxy import Estimate, Proxy, judge_proxy
from ptal_ray.reporting.study_store import store_of
from ptal_ray.reporting.text import study_metric, table
from ptal_ray.space.space import SearchSpace
from ptal_ray.study.view import StudyView, TrialView, resolved_space
from ptal_ray.training.decoding import decode_settings, read_scores
from ptal_ray.training.selection import ByMap, ground_truth

MOST_TRIALS = 40
_TITLE = "## Selection by points"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial with one of its decode settings, judged on the same videos twice; fractions."""

    trial: int
    videos: tuple[str, ...]
    map: float
    points: float


def point_selection(view: StudyView, study_dir: Path) -> tuple[str, ...]:
    """The section of a report on a study that selects by points; none for other studies."""
    if study_metric(view) != "points":
        return ()
    try:
        found = list(candidates(view, study_dir))
    except DataError as error:
        said = f"What selection by points may have lost is not known: {error}."
        return (f"{_TITLE}\n\n{said}",)
    return (f"{_TITLE}\n\n{_text(found)}",)


def candidates(view: StudyView, study_dir: Path) -> Iterator[Candidate]:
    """Trials whose cached scores are there, with every decode setting.

    Of more than MOST_TRIALS, those are a random sample with the best one by points, because each
    is decoded again at every setting.

    Raises:
        DataError: the selection videos have no annotated instance, or the store is not what it
            was, or no scores are left.
    """
    store, space = store_of(view, study_dir), resolved_space(view)
    kept = {
        trial.number: study_dir / "trials" / f"{trial.number:05d}" / "scores.npz"
        for trial in view.trials
        if trial.reports and trial.reports[-1].settings
    }
    kept = {number: path for number, path in kept.items() if path.exists()}
    if not kept:
        raise DataError("no scores of a trial are on this machine")
    for trial in _sample([trial for trial in view.trials if trial.number in kept]):
        yield from _candidates(trial, read_scores(kept[trial.number]), space, store)


def _sample(trials: list[TrialView]) -> list[TrialView]:
    if len(trials) <= MOST_TRIALS:
        return trials
    best = max(trials, key=lambda trial: (trial.objective or 0.0) if trial.finite else -1.0)
    others = [trial for trial in trials if trial is not best]
    drawn = np.random.default_rng(0).choice(len(others), MOST_TRIALS - 1, replace=False)
    return sorted([best, *(others[k] for k in drawn)], key=lambda trial: trial.number)


def _candidates(
    trial: TrialView, scores: Sequence[Scores], space: SearchSpace, store: FeatureStore
) -> Iterator[Candidate]:
    ids, method = tuple(s.id for s in scores), load(space.method)
    truth, rules = ground_truth(store, ids, "val"), protocol(store.info.name)
    by_map = ByMap(truth=truth, num_classes=store.info.num_classes, protocol=rules)
    resample_to = int(space.resolve_train(trial.params).get("resample_to", 0))
    videos = [(s, stored_grid(store, s.id, resample_to), store.duration_s(s.id)) for s in scores]
    settings = decode_settings(
        with_values(method.decode_params, space.decode_defaults()),
        space.decode,
        space.selection.decode_settings,
        space.selection.fold_seed,
    )
    for hp, points in zip(settings, trial.reports[-1].settings, strict=True):
        found = {s.id: method.decode(s, grid, duration_s, hp) for s, grid, duration_s in videos}
        value = by_map.metrics(found)[ByMap.name]
        yield Candidate(trial=trial.number, videos=ids, map=value, points=points)


def judged(found: Sequence[Candidate]) -> dict[tuple[str, ...], Proxy]:
    """How well points stand in for mAP, for each set of selection videos."""
    return {
        videos: judge_proxy(
            [c.map for c in found if c.videos == videos],
            [c.points for c in found if c.videos == videos],
            [c.trial for c in found if c.videos == videos],
        )
        for videos in dict.fromkeys(c.videos for c in found)
    }


def _text(found: Sequence[Candidate]) -> str:
    body = [
        [str(len(videos)), str(proxy.candidates), estimate(proxy.correlation, 1, 2),
         f"{100 * proxy.best:.1f}", f"{100 * proxy.chosen:.1f}", estimate(proxy.regret, 100, 1)]
        for videos, proxy in judged(found).items()
    ]  # fmt: skip
    trials = len({c.trial for c in found})
    chosen = f"The candidates are the best trial by points and {trials - 1} random ones, each"
    if trials < MOST_TRIALS:
        chosen = "Every trial is a candidate"
    return (
        "The selection videos have annotated segments, which the search did not read. "
        f"{chosen} with every decode setting; the one selected by points is compared "
        "with the best by mAP on the same videos. Intervals: 95 %, bootstrap over trials.\n\n"
        + table(
            ["videos", "candidates", "rank correlation", "best mAP, %", "chosen by points, %",
             "lost"],
            body,
        )
    )  # fmt: skip


def estimate(value: Estimate, scale: float, digits: int) -> str:
    """A value with its interval, as text."""
    shown = [f"{scale * v:.{digits}f}" for v in (value.value, value.low, value.high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
