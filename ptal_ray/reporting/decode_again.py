"""Decode parameters of a finished study, tuned again on the scores that its trials left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptal_ray.data.batching import stored_grid
from ptal_ray.data.datasets import protocol
from ptal_ray.data.store import FeatureStore
from ptal_ray.data.types import Grid, Scores, Segments
from ptal_ray.errors import ConfigError, DataError
from ptal_ray.methods.method import DecodeParams, load, with_values
from ptal_ray.reporting.study_store import store_of
from ptal_ray.space.domain import Domain, Scalar
from ptal_ray.study.conclusion import recommended
from ptal_ray.study.run_folder import SCORES
from ptal_ray.study.view import StudyView, TrialView, resolved_space
from ptal_ray.training.decoding import DecodeResult, read_scores, search_decode
from ptal_ray.training.selection import ByMap, ground_truth

GRID = 12  # values of a parameter in the landscape
Setting = dict[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """The objective over two decode parameters, the others as in the best setting.

    Args:
        names: of the two.
        values: of each.
        objective: fractions; a row for each value of the second parameter.
    """

    names: tuple[str, str]
    values: tuple[tuple[Scalar, ...], tuple[Scalar, ...]]
    objective: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a second decode search found; mAP as fractions.

    Args:
        study: its name.
        trials: whose scores were decoded.
        videos: number of held-out videos, each counted once a trial.
        settings: number of settings tried.
        per_second: settings a second, all videos decoded and scored.
        default, chosen, best: mAP of the defaults, of the study's choice and of the best setting.
        expected: mAP where each half of the videos is decoded as the other half likes best: what
            the best setting is worth on other videos.
        decode: the best setting.
        searched: the parameters that varied, the most influential first.
        landscape: None with fewer than two of them.
    """

    study: str
    trials: tuple[int, ...]
    videos: int
    settings: int
    per_second: float
    default: float
    chosen: float
    best: float
    expected: float
    decode: Setting
    searched: tuple[str, ...]
    landscape: Landscape | None


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The scores of a trial, with all that decoding takes."""

    scores: list[Scores]
    grids: list[Grid]
    durations: list[float]
    truth: Mapping[str, Segments]


class _Decoder:
    """Scores settings on all cells of a study."""

    def __init__(self, view: StudyView, store: FeatureStore, cells: Sequence[_Cell]) -> None:
        self.method = load(view.study.method)
        self.space, self.store, self.cells = resolved_space(view), store, cells
        self.start = with_values(self.method.decode_params, view.study.defaults["decode"])
        self.tried, self.seconds = 0, 0.0

    def search(
        self, start: Any, domains: Mapping[str, Domain], settings: int, cross_fit: bool = False
    ) -> list[DecodeResult[DecodeParams]]:
        """The decode search on each cell, with the same settings."""
        began = time.perf_counter()
        found = [
            search_decode(
                self.method.decode, cell.scores, cell.grids, cell.durations, self._by_map(cell),
                start=start,
                domains=domains, settings=settings, cross_fit=cross_fit,
                seed=self.space.selection.fold_seed,
            )
            for cell in self.cells
        ]  # fmt: skip
        self.seconds += time.perf_counter() - began
        self.tried += len(found[0].table)
        return found

    def _by_map(self, cell: _Cell) -> ByMap:
        info = self.store.info
        rules = protocol(info.name, self.method.supervision)
        return ByMap(truth=cell.truth, num_classes=info.num_classes, protocol=rules)

    def value(self, setting: Mapping[str, Scalar]) -> float:
        """mAP of one setting, the mean over cells."""
        found = self.search(replace(self.start, **dict(setting)), {}, 1)
        return float(np.mean([own.table[0][1] for own in found]))


def decode_again(study_dir: Path, trial: int | None, settings: int) -> Again:
    """Tries many settings.

    Args:
        study_dir: of a study with trials that reported.
        trial: its scores alone; None for all trials of the recommended configuration.
        settings: tried in all, the defaults first.

    Raises:
        ConfigError: there is no such trial, nothing is searched, or too few settings are asked for.
        DataError: the scores or the data are not on this machine, or the study has parameters that
            this version does not have.
    """
    view = StudyView.read(study_dir)
    if view.start is None:
        raise DataError(f"{study_dir}: its log has no study; was the search started?")
    if settings < 2:
        raise ConfigError(f"--settings {settings}: must be at least 2, including the defaults")
    domains = resolved_space(view).decode
    if not domains:
        raise ConfigError(f"{study_dir}: its space searches no decode parameter; nothing to tune")
    store = store_of(view, study_dir)
    chosen = _trials(view, study_dir, trial)
    decoder = _Decoder(view, store, [_cell(study_dir, own, view, store) for own in chosen])
    found = decoder.search(decoder.start, domains, settings, cross_fit=True)
    per_second = decoder.tried / max(1e-9, decoder.seconds)
    values = np.mean([[value for _, value in own.table] for own in found], axis=0)
    tried = [setting for setting, _ in found[0].table]
    best = int(values.argmax())
    order = _influence(tried, values, domains)
    own_choice = view.best_config()
    return Again(
        study=view.study.study,
        trials=tuple(own.number for own in chosen),
        videos=sum(len(cell.scores) for cell in decoder.cells),
        settings=len(tried),
        per_second=per_second,
        default=float(values[0]),
        chosen=decoder.value(own_choice[1]) if own_choice else float(values[0]),
        best=float(values[best]),
        expected=float(np.mean([own.objective for own in found])),
        decode=dict(tried[best]),
        searched=tuple(order),
        landscape=_landscape(decoder, tried[best], order, domains),
    )


def _trials(view: StudyView, study_dir: Path, number: int | None) -> list[TrialView]:
    """The trials whose scores are decoded: those of the recommended configuration."""
    able = [t for t in view.trials if t.reports and _scores(study_dir, t.number).exists()]
    if number is not None:
        found = [t for t in able if t.number == number]
        if not found:
            known = ", ".join(str(t.number) for t in able[:20]) or "none"
            raise ConfigError(f"--trial {number}: has no scores; trials that have: {known}")
        return found
    said = recommended(view)
    found = [t for t in able if said and t.arm == said.arm]
    best = view.end and view.end.best_trial
    found = found or [t for t in able if t.number == best] or [t for t in able if t == view.best]
    if not (found or able):
        raise DataError(f"{study_dir}: no trial has scores on this machine")
    return found or able[:1]


def _scores(study_dir: Path, number: int) -> Path:
    return study_dir / "trials" / f"{number:05d}" / SCORES


def _cell(study_dir: Path, trial: TrialView, view: StudyView, store: FeatureStore) -> _Cell:
    scores = read_scores(_scores(study_dir, trial.number))
    ids = [own.id for own in scores]
    if unknown := set(ids) - set(store.ids("train")):
        raise DataError(f"trial {trial.number}: video {min(unknown)} is not in the training split")
    train = dict(view.study.defaults["train"]) | dict(trial.params)
    fixed = view.study.space.get("train", {})
    train |= {k: v for k, v in fixed.items() if not isinstance(v, dict)}
    resample_to = int(train.get("resample_to", 0))
    return _Cell(
        scores=scores,
        grids=[stored_grid(store, id, resample_to) for id in ids],
        durations=[store.duration_s(id) for id in ids],
        truth=ground_truth(store, ids, "val"),
    )


def _influence(tried: Sequence[Setting], values: Any, domains: Mapping[str, Domain]) -> list[str]:
    """Parameters by how much the mean objective differs between thirds of their values."""
    spread = {}
    for name in domains:
        shown = [setting[name] for setting in tried]
        order = sorted(range(len(tried)), key=lambda k: (str(type(shown[k])), shown[k]))
        ranked = np.asarray(values)[order]
        means = [part.mean() for part in np.array_split(ranked, 3) if len(part)]
        spread[name] = max(means) - min(means)
    return sorted(spread, key=lambda name: -spread[name])


def _landscape(
    decoder: _Decoder, best: Setting, order: Sequence[str], domains: Mapping[str, Domain]
) -> Landscape | None:
    """The objective on a grid of the two most influential parameters."""
    if len(order) < 2:
        return None
    one, other = order[:2]
    columns, rows = domains[one].grid(GRID), domains[other].grid(GRID)
    table = tuple(tuple(decoder.value(best | {one: x, other: y}) for x in columns) for y in rows)
    return Landscape(names=(one, other), values=(columns, rows), objective=table)
